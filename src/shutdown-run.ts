import { inspect } from "node:util";
import { isGone } from "./database-files.ts";
import { type LitestreamError, messageOf } from "./errors.ts";
import { fileOf, isThere, placeOf, unlessThrown, whyGone } from "./known-files.ts";
import { unlessCut, withLimit } from "./litestream/limit.ts";
import {
  type Database,
  endProcess,
  type Registration,
  shutdown,
  type Task,
  UNPROVEN,
  type UnderWay,
} from "./shutdown-state.ts";
import { endRestores } from "./signal-in-restore.ts";

/**
 * Signals that are so near to each other are one. A terminal's Ctrl-C reaches npm's whole process group, and npm passes it on
 * besides: the app has it twice within a millisecond (npm 11 with bash; with dash, the shell keeps the second one). And
 * whoever hammers on Ctrl-C has not read yet what the second one says.
 */
const MOMENT_MS = 500;
/** 128 + SIGINT, as a shell has it for a program that Ctrl-C has ended. */
const INTERRUPTED = 130;

export function onSignal(signal: NodeJS.Signals): void {
  const now = performance.now();
  if (shutdown.underWay !== undefined) {
    onFurtherSignal(signal, shutdown.underWay, now);
    return;
  }
  const registrations = [...shutdown.registered];
  const files = tasksOf(registrations);
  shutdown.underWay = { start: now, open: new Set(files.flat()), counted: now, warned: false };
  for (const { database, timeoutSeconds } of shutdown.underWay.open) {
    const { dbpath, logger } = database;
    unlessThrown(() => isThere(dbpath));
    logger.info({ dbpath, timeoutSeconds }, `${signal}: closing and replicating`);
  }
  void shutDown(registrations, files, now);
}

/** The first one says how long it takes at most. A further Ctrl-C is somebody who knows that, and ends it. */
function onFurtherSignal(signal: NodeJS.Signals, underWay: UnderWay, now: number): void {
  if (now - underWay.counted < MOMENT_MS) return;
  underWay.counted = now;
  // Only Ctrl-C: SIGTERM is a program's, and some send several (Heroku). One that means it sends SIGKILL.
  const end = underWay.warned && signal === "SIGINT";
  underWay.warned = true;
  for (const { database, timeoutSeconds, doing } of underWay.open) {
    const { dbpath, s3, logger } = database;
    if (unlessThrown(() => isGone(dbpath))) continue;
    if (end) {
      logger.error(
        { dbpath },
        `${signal}: ended before the proof. What of ${dbpath} is not in ${s3} is on this disk alone: keep it, the next boot here goes on with it. A litestream that is still running ends too.`,
      );
    } else {
      const left = Math.max(0, Math.ceil(timeoutSeconds - (now - underWay.start) / 1000));
      logger.warn(
        { dbpath },
        `${signal} again: still ${doing}, for ${left} s more at most. Ctrl-C once more ends it at once; what of ${dbpath} is not in ${s3} by then, is on this disk alone.`,
      );
    }
  }
  if (end) endProcess(INTERRUPTED);
}

/**
 * One for each replica of each file, by file, however often it is registered: the shortest time counts, and the files stay if
 * one wants that.
 */
function tasksOf(registrations: readonly Registration[]): Task[][] {
  const files = new Map<string, Registration[]>();
  for (const registration of registrations) {
    const file = fileOf(registration.database.dbpath);
    files.set(file, [...(files.get(file) ?? []), registration]);
  }
  return [...files.values()].map((same) => {
    const timeoutSeconds = Math.min(...same.map((registration) => registration.timeoutSeconds));
    const keepLocal = same.some((registration) => registration.keepLocal);
    const places = new Map(same.map(({ database }) => [placeOf(database), database]));
    return [...places.values()].map((database) => ({
      database,
      timeoutSeconds,
      keepLocal,
      doing: "closing",
    }));
  });
}

async function shutDown(registrations: Registration[], files: Task[][], start: number): Promise<void> {
  try {
    // What a restore has put into place by then is replicated like any other; the app must not open it any more.
    const restores = endRestores();
    // One may close what another one's database is written by: each waits for all.
    const closed = Promise.all(registrations.map(close)).then((all) => all.every(Boolean));
    const proven = await Promise.all(files.map((tasks) => proveFile(tasks, closed, restores, start)));
    if (!proven.every(Boolean)) process.exitCode = UNPROVEN;
  } catch {
    process.exitCode = UNPROVEN;
  }
  endProcess();
}

/** False where it failed. */
async function close({ close, database }: Registration): Promise<boolean> {
  try {
    await close();
    return true;
  } catch (error) {
    const { dbpath, logger, redact } = database;
    logger.error(
      { dbpath, error: redact(inspect(error)) },
      "close() failed, so that something may still write: what is there is replicated, and the local files stay",
    );
    return false;
  }
}

/** The replicas of one file, one after the other: the files stay until the last one has everything. */
async function proveFile(
  tasks: Task[],
  closed: Promise<boolean>,
  restores: Promise<unknown>,
  start: number,
): Promise<boolean> {
  const [task] = tasks;
  if (task === undefined) return true;
  const { database, timeoutSeconds, keepLocal } = task;
  const { dbpath, logger } = database;
  try {
    const half = timeoutSeconds / 2;
    const clean = await withLimit(half, undefined, async (limit) => {
      await unlessCut(restores, limit);
      return await unlessCut(closed, limit);
    });
    if (clean === undefined) {
      logger.error(
        { dbpath },
        `close() has not ended within ${half} s, so that something may still write: what is there is replicated, and the local files stay`,
      );
    }
    if (!isThere(dbpath)) return sayWhyGone(database) && clean === true;
    // Where close() has held up the event loop, even past the deadline, the proof is worth a try.
    const endsAt = Math.max(performance.now() + half * 1000, start + timeoutSeconds * 1000);
    let proven = true;
    for (const [done, task] of tasks.entries()) {
      task.doing = "replicating";
      const isLast = done === tasks.length - 1;
      const leftMs = Math.max(1, endsAt - performance.now()) / (tasks.length - done);
      const keeps = keepLocal || !clean || !isLast || !proven;
      if (!(await prove(task, leftMs / 1000, keeps, clean === true))) proven = false;
    }
    return proven && clean === true;
  } catch (error) {
    logger.error({ dbpath }, messageOf(error));
    return false;
  } finally {
    for (const task of tasks) shutdown.underWay?.open.delete(task);
  }
}

async function prove(
  task: Task,
  timeoutSeconds: number,
  keepLocal: boolean,
  clean: boolean,
): Promise<boolean> {
  const { dbpath, logger } = task.database;
  try {
    return await task.database.prove({ timeoutSeconds, keepLocal });
  } catch (error) {
    // By its code: it may come from another copy of the package.
    const isGoneSince = clean && (error as LitestreamError | undefined)?.code === "DATABASE_NOT_FOUND";
    if (!isGoneSince) {
      logger.error({ dbpath }, messageOf(error));
      return false;
    }
    // Everything of this process was in it when it was there last, and it goes by a proof or by delete().
    logger.warn(
      { dbpath },
      "the database has gone after close(): another call, of another process, has replicated or deleted it",
    );
    return true;
  } finally {
    shutdown.underWay?.open.delete(task);
  }
}

/** @returns whether that is as it should be */
function sayWhyGone({ dbpath, logger }: Database): boolean {
  switch (whyGone(dbpath)) {
    // A timedReplicate() of the app's own, or before the end of a restore.
    case "removed":
    case "not-yet":
      logger.warn({ dbpath }, "there is no local database, and so nothing to replicate");
      return true;
    case "never":
      logger.error(
        { dbpath },
        `there is no database at ${dbpath}, although restore() has ended: nothing is replicated. If the app writes to another file, that is in no replica: DB_FOLDER and DB_SQLITE must name the file that it opens.`,
      );
      return false;
    case "vanished":
      logger.error(
        { dbpath },
        `there is no database at ${dbpath} any more: something else than this process has removed or moved it, and what was not in the replica by then is not there. Look for the file; another process of the app must not remove it.`,
      );
      return false;
  }
}
