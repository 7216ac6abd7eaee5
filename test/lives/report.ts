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
  /** What became of the lives that replicate all the time. */
  readonly continuous: Record<string, number> = {};
  /** How processes ended that had called onShutdown(). */
  readonly exits: Record<string, number> = {};
  readonly litestreams: Record<string, number> = {};
  /** What the histories asked for and this machine can't do, and why. */
  readonly notRun: Record<string, number> = {};

  static count(of: Record<string, number>, name: string, times = 1): void {
    of[name] = (of[name] ?? 0) + times;
  }

  get line(): string {
    return (
      `${this.lives} lives, ${sum(this.kills)} kills, ${sum(this.faults)} faults, ${this.rowsAcknowledged} rows acknowledged, ` +
      `${this.rowsLost} lost, ${this.localFilesWronglyDeleted} local files wrongly deleted, ` +
      `${this.deadlinesMissed} deadlines missed`
    );
  }

  /** The totals as a Markdown table, as docs/durability.md has it. */
  get table(): string {
    const rows: [string, string | number][] = [
      ["lives", `${this.lives} in ${this.histories} histories (${each(this.litestreams)})`],
      ["boots that came to their end", this.boots],
      ["boots that failed, with a reason", each(this.bootErrors)],
      ["kills", `${sum(this.kills)}: ${each(this.kills)}`],
      ["faults", `${sum(this.faults)}: ${each(this.faults)}`],
      ["replicating all the time", each(this.continuous)],
      ["answers", each(this.answers)],
      ["ends of the process", each(this.exits)],
      ["asked for, and not to be had on this machine", each(this.notRun)],
      ["rows acknowledged", this.rowsAcknowledged],
      ["rows looked at after boots", this.rowsChecked],
      ["rows lost", this.rowsLost],
      ["local files wrongly deleted", this.localFilesWronglyDeleted],
      ["deadlines missed", this.deadlinesMissed],
    ];
    return ["| | |", "|---|---|", ...rows.map(([name, value]) => `| ${name} | ${value} |`)].join("\n");
  }
}

const sum = (counts: Record<string, number>) => Object.values(counts).reduce((a, b) => a + b, 0);

/** The most frequent first. */
const each = (counts: Record<string, number>) =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .toSorted(([, a], [, b]) => b - a)
    .map(([name, count]) => `${count} × ${name}`)
    .join(", ") || "none";
