import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync, renameSync, symlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CutShort, pause } from "./litestream/limit.ts";

const POLL_MS = 50;

/**
 * One at a time, over all processes of this machine, may replicate, remove or put into place a database. A litestream that
 * opens one which another call has just deleted makes an empty one in its place, and uploads that; a restore that cleans
 * up could take the `-wal` of a database that another call has just moved aside.
 * @throws CutShort where the signal comes before the lock; the work is not begun then
 */
export async function withDatabaseLock<T>(
  dbpath: string,
  signal: AbortSignal,
  work: () => T | Promise<T>,
): Promise<T> {
  let release = lockDatabase(dbpath);
  while (release === undefined && !signal.aborted) {
    await pause(POLL_MS, signal);
    if (!signal.aborted) release = lockDatabase(dbpath);
  }
  if (release === undefined || signal.aborted) {
    release?.();
    const { reason, cause } = signal.reason as CutShort;
    throw new CutShort(
      reason,
      cause,
      "another call, perhaps in another process, was replicating or deleting it all the time",
    );
  }
  try {
    return await work();
  } finally {
    release();
  }
}

/**
 * The lock is a symbolic link to nowhere, which is made with its content in one step; where a file system has none, there
 * is no lock.
 * @returns what releases it; `undefined` while another process, or another call of this one, holds it
 */
export function lockDatabase(dbpath: string): (() => void) | undefined {
  const lock = join(dirname(dbpath), `.${basename(dbpath)}-litestream-s3.lock`);
  const own = ownerOf(String(process.pid)) ?? "";
  try {
    const owner = readlinkSync(lock);
    if (owner === ownerOf(owner.split(" ", 1)[0] ?? "")) return undefined;
    breakLock(lock, owner);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return undefined;
    if (code !== "ENOENT") return () => {};
  }
  try {
    symlinkSync(own, lock);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EEXIST" ? undefined : () => {};
  }
  return () => {
    try {
      if (readlinkSync(lock) === own) unlinkSync(lock);
    } catch {
      // The next one sees that its process is gone.
    }
  };
}

/** Takes away the lock of a process that is gone; not the one that somebody else has made meanwhile. */
function breakLock(lock: string, owner: string): void {
  const aside = `${lock}.${process.pid}-${randomBytes(4).toString("hex")}`;
  renameSync(lock, aside); // of two that do this, one finds nothing
  const taken = readlinkSync(aside);
  if (taken !== owner) symlinkSync(taken, lock);
  unlinkSync(aside);
}

/** The process's id and, where there is a `/proc`, when it began: ids come again, in a container soon. */
function ownerOf(pid: string): string | undefined {
  if (!isAlive(Number(pid))) return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return `${pid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`; // proc(5), field 22
  } catch {
    return `${pid} unknown`;
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
