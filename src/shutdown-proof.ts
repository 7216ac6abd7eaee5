import { type LitestreamError, messageOf } from "./errors.ts";
import { isThere, whyGone } from "./known-files.ts";
import { unlessCut, withLimit } from "./litestream/limit.ts";
import { type Database, shutdown, type Task } from "./shutdown-state.ts";

/** The replicas of one file, one after the other: the files stay until the last one has everything. */
export async function proveFile(
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
