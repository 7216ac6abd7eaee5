import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { setImmediate } from "node:timers/promises";

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
/** The pid of a lock whose owner is not named. */
const NAMELESS = 0;

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
   */
  nearestOthers(): Holder[] {
    const pids = new Set<number>();
    const steps = this.#stepsToOthers();
    for (let left = MAX_DESCRIPTORS; left > 0; left -= 1) {
      const { done, value } = steps.next();
      if (done) break;
      if (value !== undefined) pids.add(value);
    }
    return holdersFor(pids);
  }

  /** Whether one of these still has it open: cheaper than to look for all. */
  isOpenIn(holders: readonly Holder[]): boolean {
    const lockers = this.#lockers();
    return holders.some(({ pid = NAMELESS }) => lockers.has(pid) || (pid !== NAMELESS && this.#isIn(pid)));
  }

  /** Whether this process has it open. */
  isOpenHere(): boolean {
    return this.#isIn("self");
  }

  /** A step for each descriptor; one that has found a holder gives its pid. */
  *#stepsToOthers(): Generator<number | undefined, void> {
    yield* this.#lockers();
    const self = ownPid();
    const distance = (pid: number) => Math.abs(pid - self);
    for (const pid of processes().sort((a, b) => distance(a) - distance(b))) {
      if (pid === self) continue;
      for (const isIt of this.#descriptors(pid)) yield isIt ? pid : undefined;
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

/**
 * Who has, or waits for, a lock on a file.
 * @param text of /proc/locks
 * @param inodes each way in which the file's inode may be written there
 * @returns the pids; 0 for an owner who is not named
 */
export function lockersIn(text: string, inodes: ReadonlySet<string>): Set<number> {
  const pids = new Set<number>();
  for (const line of text.split("\n")) {
    const [, pid, inode] = /^\d+: *(?:-> *)?\S+ +\S+ +\S+ +(-?\d+) +(\S+) /.exec(line) ?? [];
    if (inode !== undefined && inodes.has(inode)) pids.add(Math.max(Number(pid), NAMELESS));
  }
  return pids;
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

/** A device as /proc/locks has it; both halves of the number are split in two by Linux. */
function deviceName(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return [major, minor].map((n) => n.toString(16).padStart(2, "0")).join(":");
}

/** The device of a folder's mount, which btrfs and overlayfs have in /proc/locks, but not in `stat`. */
function mountDevice(folder: string): string | undefined {
  try {
    const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      const [, mount] = /^mnt_id:\s*(\d+)$/m.exec(readIn(`/proc/self/fdinfo/${fd}`)) ?? [];
      const line = new RegExp(`^${mount} \\d+ (\\d+):(\\d+) `, "m").exec(readIn("/proc/self/mountinfo"));
      return line
        ?.slice(1, 3)
        .map((n) => Number(n).toString(16).padStart(2, "0"))
        .join(":");
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

/** The name of its program and script, and no other argument: those may be secrets. */
function programOf(pid: number): string | undefined {
  const [file = "", ...args] = readIn(`/proc/${pid}/cmdline`).split("\0");
  // A process that names itself has that as one word.
  const program = /^\S+$/.test(file) ? basename(file) : readIn(`/proc/${pid}/comm`).trim();
  const script = basename(args.find((arg) => !arg.startsWith("-")) ?? "");
  const words = SCRIPT.test(script) ? `${program} ${script}` : program;
  return words.replace(/[^\x20-\x7e]/g, "?").slice(0, MAX_PROGRAM) || undefined;
}

const SCRIPT = /^[\w.+-]{1,60}\.(?:[cm]?[jt]sx?|php|py|rb|sh)$/;
const MAX_PROGRAM = 80;

const processes = () => namesIn("/proc").flatMap((name) => (/^[1-9]\d*$/.test(name) ? Number(name) : []));

/** As /proc has it, whose numbers may be another namespace's. */
function ownPid(): number {
  try {
    return Number(readlinkSync("/proc/self"));
  } catch {
    return process.pid;
  }
}

/** Nothing where it can't be read: another user's process, or none. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readIn(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}
