/** What a run has seen, counted where it happens. */
export class Report {
  histories = 0;
  lives = 0;
  boots = 0;
  rowsAcknowledged = 0;
  rowsChecked = 0;
  rowsLost = 0;
  localFilesWronglyDeleted = 0;
  deadlinesMissed = 0;
  readonly answers: Record<string, number> = {};
  readonly bootErrors: Record<string, number> = {};
  readonly kills: Record<string, number> = {};
  readonly faults: Record<string, number> = {};
  readonly litestreams: Record<string, number> = {};
  /** What the histories asked for and this machine can't do, and why. */
  readonly notRun: Record<string, number> = {};

  static count(of: Record<string, number>, name: string, times = 1): void {
    of[name] = (of[name] ?? 0) + times;
  }

  get line(): string {
    const kills = Object.values(this.kills).reduce((a, b) => a + b, 0);
    const faults = Object.values(this.faults).reduce((a, b) => a + b, 0);
    return (
      `${this.lives} lives, ${kills} kills, ${faults} faults, ${this.rowsAcknowledged} rows acknowledged, ` +
      `${this.rowsLost} lost, ${this.localFilesWronglyDeleted} local files wrongly deleted, ` +
      `${this.deadlinesMissed} deadlines missed`
    );
  }
}
