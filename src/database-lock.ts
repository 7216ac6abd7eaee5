import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { createServer } from "node:net";
import { platform } from "node:os";
import { basename, dirname } from "node:path";
import { LitestreamError } from "./errors.ts";
import { CutShort, pause } from "./litestream/limit.ts";
import type { Logger } from "./logger.ts";
import { processState } from "./process-state.ts";

const POLL_MS = 50;
/** The locks of this process, where the system has no abstract sockets. */
const heldHere = processState("locks", () => new Set<string>());

/**
 * One at a time, over all processes of this machine, may replicate, remove or put into place a database. A litestream that
 * opens one which another call has just deleted makes an empty one in its place, and uploads that; a restore that cleans
 * up could take the `-wal` of a database that another call has just moved aside.
 * @param work gets the descriptor that is the lock: a process that has it too keeps it when this one is gone; `undefined`
 * where the lock is this process's own
 * @throws CutShort where the signal comes before the lock; the work is not begun then
 */
export async function withDatabaseLock<T>(
  { dbpath, logger }: { dbpath: string; logger: Logger },
  signal: AbortSignal,
  work: (keep: number | undefined) => T | Promise<T>,
): Promise<T> {
  const name = nameOf(dbpath);
  let held = await hold(name, logger);
  if (held === undefined)
    logger.info({ dbpath }, "another call, perhaps in another process, has this database: waiting");
  while (held === undefined && !signal.aborted) {
    await pause(POLL_MS, signal);
    if (!signal.aborted) held = await hold(name, logger);
  }
  try {
    if (held === undefined || signal.aborted) {
      const { reason, cause } = signal.reason as CutShort;
      const words = "another call, perhaps in another process, was replicating or deleting it all the time";
      throw new CutShort(reason, cause, held === undefined ? words : undefined);
    }
    return await work(held.keep);
  } finally {
    await held?.release();
  }
}

/** The same for every path to the database, as long as its folder is the same. */
function nameOf(dbpath: string): string {
  const folder = statSync(dirname(dbpath), { bigint: true, throwIfNoEntry: false });
  const place = folder === undefined ? dirname(dbpath) : `${folder.dev}:${folder.ino}`;
  return createHash("sha256")
    .update(`${place}/${basename(dbpath)}`)
    .digest("hex");
}

interface Lock {
  readonly keep: number | undefined;
  readonly release: () => Promise<void>;
}

/**
 * Holds a name in the kernel: an abstract Unix socket, unix(7), which nobody else can have, and which ends with its process
 * however that ends. Where there are none (macOS), the lock is this process's own.
 * @returns `undefined` while another call has it
 */
async function hold(name: string, logger: Logger): Promise<Lock | undefined> {
  if (platform() !== "linux") return holdHere(name);
  const server = createServer((socket) => socket.destroy()).unref();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      // exclusive: workers of a cluster would share it
      server.listen({ path: `\0litestream-s3-${name}`, exclusive: true }, resolve);
    });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE") return undefined;
    if (code === "EMFILE" || code === "ENFILE") {
      throw new LitestreamError(
        "TOO_MANY_OPEN_FILES",
        "The database's lock could not be taken: this process has too many open files. Close some, or raise `ulimit -n`.",
        { cause: error },
      );
    }
    logger.warn(
      { code },
      "this system has no abstract sockets: other processes are not kept away from the database",
    );
    return holdHere(name);
  }
  // No public way leads to it; without it, the lock ends with this process.
  const { _handle } = server as unknown as { _handle?: { fd?: number } };
  const keep = _handle?.fd;
  return {
    keep: keep !== undefined && keep >= 0 ? keep : undefined,
    release: () => new Promise((closed) => server.close(() => closed())),
  };
}

function holdHere(name: string): Lock | undefined {
  if (heldHere.has(name)) return undefined;
  heldHere.add(name);
  return { keep: undefined, release: async () => void heldHere.delete(name) };
}
