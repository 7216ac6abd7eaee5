import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

// What Linux tells in /proc of processes and their locks; elsewhere there is nothing of it.

/** Stands for the pid of somebody who is not named. */
export const NAMELESS = 0;

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

/** A device as /proc/locks has it; both halves of the number are split in two by Linux. */
export function deviceName(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return [major, minor].map((n) => n.toString(16).padStart(2, "0")).join(":");
}

/** The device of a folder's mount, which btrfs and overlayfs have in /proc/locks, but not in `stat`. */
export function mountDevice(folder: string): string | undefined {
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
export function programOf(pid: number): string | undefined {
  try {
    return programIn(`/proc/${pid}`);
  } catch {
    return undefined;
  }
}

function programIn(folder: string): string | undefined {
  const [file = "", ...args] = readIn(`${folder}/cmdline`).split("\0");
  // A process that names itself has that as one word.
  const program = /^\S+$/.test(file) ? basename(file) : readIn(`${folder}/comm`).trim();
  const script = basename(args.find((arg) => !arg.startsWith("-")) ?? "");
  const words = SCRIPT.test(script) ? `${program} ${script}` : program;
  return words.replace(/[^\x20-\x7e]/g, "?").slice(0, MAX_PROGRAM) || undefined;
}

const SCRIPT = /^[\w.+-]{1,60}\.(?:[cm]?[jt]sx?|php|py|rb|sh)$/;
const MAX_PROGRAM = 80;

export const processes = () =>
  namesIn("/proc").flatMap((name) => (/^[1-9]\d*$/.test(name) ? Number(name) : []));

/** As /proc has it, whose numbers may be another namespace's. */
export function ownPid(): number {
  try {
    return Number(readlinkSync("/proc/self"));
  } catch {
    return process.pid;
  }
}

/** Nothing if this process may not read it, or the other one has ended. */
export function namesIn(folder: string): string[] {
  return unlessHidden(() => readdirSync(folder), []);
}

export function readIn(file: string): string {
  return unlessHidden(() => readFileSync(file, "latin1"), "");
}

const HIDDEN: unknown[] = ["ENOENT", "ESRCH", "ENOTDIR", "EACCES", "EPERM"];

function unlessHidden<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch (error) {
    if (HIDDEN.includes((error as NodeJS.ErrnoException).code)) return otherwise;
    throw error;
  }
}
