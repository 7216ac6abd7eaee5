import { lstatSync, readlinkSync, statSync } from "node:fs";
import { basename, dirname } from "node:path";
import { setImmediate } from "node:timers/promises";
import {
  deviceName,
  lockersIn,
  mountDevice,
  NAMELESS,
  namesIn,
  ownPid,
  processes,
  programOf,
  readIn,
} from "./proc.ts";

// Who has a database open, as Linux tells in /proc; elsewhere nobody is found. A connection in WAL mode has a lock on the main
// file for as long as it is open, and anybody may read the list of locks. One in rollback-journal mode has none while it is
// idle: only its descriptor shows. The database itself is not opened here, for the reason in database-files.ts.

/** A process that has the database open. */
export interface Holder {
  /** `undefined` for one that the kernel does not name. */
  readonly pid: number | undefined;
  /** Such as `node worker.js`; `undefined` if it can't be told. */
  readonly program: string | undefined;
}

/** So long the event loop may be held up at a time. */
const SLICE_MS = 4;
/** How many descriptors are looked at while nothing else may run: a few milliseconds. */
const MAX_DESCRIPTORS = 500;

/** A database, and who has it open. It is known by its inode, so that it may be moved meanwhile. */
export class OpenDatabase {
  readonly #dev: bigint;
  readonly #ino: bigint;
  /** How its descriptors' names begin, also after it was moved aside and back: the kernel then adds ` (deleted)`. */
  readonly #name: string;
  /** How its inode may be written in /proc/locks. */
  readonly #inodes: ReadonlySet<string>;

  /** Of nothing, which nobody has open, if there is none. */
  constructor(dbpath: string) {
    const { dev = 0n, ino = -1n } = lstatSync(dbpath, { bigint: true, throwIfNoEntry: false }) ?? {};
    this.#dev = dev;
    this.#ino = ino;
    this.#name = basename(dbpath);
    const devices = [deviceName(dev), mountDevice(dirname(dbpath))];
    this.#inodes = new Set(devices.map((device) => `${device}:${ino}`));
  }

  /** The other processes that have it open; those that were found until the signal fired. */
  async others(signal: AbortSignal): Promise<Holder[]> {
    const pids = new Set<number>();
    const steps = this.#stepsToOthers();
    for (let began = performance.now(); !signal.aborted; ) {
      const { done, value } = steps.next();
      if (done) break;
      if (value !== undefined) pids.add(value);
      if (performance.now() - began < SLICE_MS) continue;
      await setImmediate();
      began = performance.now();
    }
    return holdersFor(pids);
  }

  /**
   * The last look, without a pause: at all locks, and at the descriptors of the processes with the nearest ids, such as a
   * cluster's; on a small machine of all.
   * @param descriptors how many are looked at
   */
  nearestOthers(descriptors = MAX_DESCRIPTORS): Holder[] {
    const pids = new Set<number>();
    const steps = this.#stepsToOthers();
    for (let left = descriptors; left > 0; left -= 1) {
      const { done, value } = steps.next();
      if (done) break;
      if (value !== undefined) pids.add(value);
    }
    return holdersFor(pids);
  }

  /** Whether one of these still has it open: cheaper than to look for all. */
  isOpenIn(holders: readonly Holder[]): boolean {
    try {
      const lockers = this.#lockers();
      return holders.some(({ pid = NAMELESS }) => lockers.has(pid) || (pid !== NAMELESS && this.#isIn(pid)));
    } catch {
      return true;
    }
  }

  /** Whether this process has it open. */
  isOpenHere(): boolean {
    try {
      return this.#isIn("self");
    } catch {
      return false;
    }
  }

  /** A step for each descriptor; one that has found a holder gives its pid. */
  *#stepsToOthers(): Generator<number | undefined, void> {
    try {
      yield* this.#lockers();
      const self = ownPid();
      const distance = (pid: number) => Math.abs(pid - self);
      for (const pid of processes().sort((a, b) => distance(a) - distance(b))) {
        if (pid === self) continue;
        for (const isIt of this.#descriptors(pid)) yield isIt ? pid : undefined;
      }
    } catch {
      yield NAMELESS; // What can't be told, as without free descriptors, counts as open.
    }
  }

  #isIn(pid: number | "self"): boolean {
    for (const isIt of this.#descriptors(pid)) if (isIt) return true;
    return false;
  }

  /** For each of the process' descriptors, whether it is this file. */
  *#descriptors(pid: number | "self"): Generator<boolean, void> {
    for (const fd of namesIn(`/proc/${pid}/fd`)) {
      const path = `/proc/${pid}/fd/${fd}`;
      try {
        // The name first: another file's stat may hang with its server.
        const target = readlinkSync(path);
        if (!target.startsWith(this.#name, target.lastIndexOf("/") + 1)) {
          yield false;
          continue;
        }
        const { dev, ino } = statSync(path, { bigint: true });
        yield dev === this.#dev && ino === this.#ino;
      } catch {
        yield false; // It has just been closed.
      }
    }
  }

  /** Who has a lock on it, except this process. */
  #lockers(): Set<number> {
    const pids = lockersIn(readIn("/proc/locks"), this.#inodes);
    pids.delete(ownPid());
    // A nameless lock may be this process's own.
    if (pids.has(NAMELESS) && this.isOpenHere()) pids.delete(NAMELESS);
    return pids;
  }
}

function holdersFor(pids: Set<number>): Holder[] {
  // The owner of a nameless lock is most likely one of the others.
  if (pids.size > 1) pids.delete(NAMELESS);
  return [...pids].map((pid) =>
    pid === NAMELESS ? { pid: undefined, program: undefined } : { pid, program: programOf(pid) },
  );
}

/** In words, such as `node worker.js (pid 123)`. */
export function wordsFor(holders: readonly Holder[]): string {
  const each = holders.map(({ pid, program = "a process" }) =>
    pid === undefined ? "a process that can't be named" : `${program} (pid ${pid})`,
  );
  return each.length > 3 ? `${each.slice(0, 3).join(", ")} and ${each.length - 3} more` : each.join(", ");
}
