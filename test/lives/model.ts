import type { Report } from "./report.ts";

/** Rows from one id to another that one life has written. */
export interface Stretch {
  life: number;
  from: number;
  to: number;
}

/** What must be where: how many rows the local database holds, how many the replica, and whose they are. */
export class Model {
  /** The highest acknowledged id. */
  acked = 0;
  /** So many rows are proven to be in the replica. */
  replicated = 0;
  /** The backup may be good for nothing, and nothing was proven since. */
  broken = false;
  /** Whose rows there may be, the last ones perhaps not acknowledged. */
  #lineage: Stretch[] = [];
  readonly #report: Report;

  constructor(report: Report) {
    this.#report = report;
  }

  /** Takes in what a life has recorded beside each of its commits: `i LIFE ID` before it, `a LIFE ID` after it. */
  read(record: string, life: number): void {
    for (const line of record.trimEnd().split("\n")) {
      const [kind, lifeOf, id] = line.split(" ");
      if (Number(lifeOf) !== life) continue;
      const to = Number(id);
      if (kind === "a") {
        if (to > this.acked) this.#report.rowsAcknowledged += 1;
        this.acked = Math.max(this.acked, to);
      }
      const last = this.#lineage.at(-1);
      if (last?.life === life) last.to = Math.max(last.to, to);
      else this.#lineage.push({ life, from: to, to });
    }
  }

  /** So many rows, all by default, are proven to be in the replica. */
  proven(rows = this.acked): void {
    this.replicated = rows;
    this.broken = false;
  }

  /** Until the next proof the backup may be good for nothing: it has lost an object, or what came to it last is damaged. */
  damaged(): void {
    this.broken = true;
    this.replicated = 0;
  }

  /** The disk is gone, and what it alone had. What a boot finds comes from the replica, also where it is killed before it can tell. */
  diskLost(): void {
    this.acked = this.replicated;
  }

  /** Another machine has written to the replica, and this one is given up: what there is now is the other's. */
  replacedBy(content: Stretch[]): void {
    this.#lineage = structuredClone(content);
    this.acked = content.at(-1)?.to ?? 0;
    this.replicated = this.acked;
    this.broken = false;
  }

  /** A boot has found this, on its own disk or from the replica; the app goes on from there. */
  booted(content: Stretch[], hadLocal: boolean): void {
    const where = hadLocal ? "its own" : "an empty";
    this.check(content, hadLocal ? this.acked : this.replicated, `after the boot on ${where} disk`);
    this.#lineage = structuredClone(content);
    this.acked = content.at(-1)?.to ?? 0;
    if (!hadLocal) this.replicated = this.acked;
  }

  /**
   * What is there is a beginning of what was written, in its order, and long enough.
   * @throws Error where it is not
   */
  check(content: Stretch[], required: number, when: string): void {
    const newest = content.at(-1)?.to ?? 0;
    this.#report.rowsChecked += newest;
    if (newest < required) {
      this.#report.rowsLost += required - newest;
      throw new Error(`${when} ${required - newest} of ${required} acknowledged rows are missing`);
    }
    for (const [i, { life, from, to }] of content.entries()) {
      const written = this.#lineage[i];
      const fits =
        written !== undefined && written.life === life && written.from === from && to <= written.to;
      const last = i === content.length - 1;
      if (!fits || (!last && to !== written.to)) {
        throw new Error(
          `${when} there are rows of another time: ${JSON.stringify(content)}, written were ${JSON.stringify(this.#lineage)}`,
        );
      }
    }
  }
}
