import { fileKind, isEmpty, RestoreTarget, recoverDatabase, removeLeftovers } from "../database-files.ts";
import { withDatabaseLock } from "../database-lock.ts";
import { ADVICE, DatabaseExistsError, LitestreamError, messageOf, RestoreError } from "../errors.ts";
import { identifyBinary, type Job } from "./binary.ts";
import { lookAtChain } from "./chain.ts";
import { startChild } from "./child.ts";
import { complaintOf, NO_BACKUP, restoreArgs } from "./dialect.ts";
import { CutShort, withLimit, withTurn } from "./limit.ts";

export interface RestoreOptions {
  /** Resolves without touching it where the database exists. Default: false, which rejects. */
  ifDbNotExists?: boolean;
  /** Resolves without a file where the replica path holds no backup, as on a first boot. Default: false, which rejects. */
  ifReplicaExists?: boolean;
  /** How long it may take at most, in seconds. Default: as long as litestream takes (0.5 tries an unreachable store for minutes). */
  timeoutSeconds?: number;
  /** Ends the call early; it then rejects with the reason `aborted`. */
  signal?: AbortSignal;
}

const INCOMPLETE =
  "the replica holds objects of a backup, but its beginning is missing, perhaps taken by a lifecycle rule of the bucket; " +
  "bring them back, or use another REPLICA_URL to begin anew";

/**
 * Restores to a file of its own and moves it into place last.
 * @param findBinary called once it is clear that litestream is needed
 * @throws DatabaseExistsError, RestoreError, LitestreamNotFoundError, LitestreamUnsupportedError
 */
export async function restore(
  job: Omit<Job, "binary">,
  findBinary: () => string,
  options: RestoreOptions,
): Promise<void> {
  const { dbpath, s3, logger } = job;
  const { ifDbNotExists = false, ifReplicaExists = false } = options;
  const fail = (reason: RestoreError["reason"], words: string, cause?: unknown) => {
    const message = `${dbpath} could not be restored from ${s3}: ${job.redact(words)}. ${ADVICE[reason]}`;
    return new RestoreError(reason, message, { cause });
  };
  const keepExisting = () => {
    if (!ifDbNotExists) throw new DatabaseExistsError(dbpath);
    if (fileKind(dbpath) === "other") {
      throw fail(
        "not-a-database",
        "a symbolic link, a folder or another thing that is no plain file is in its place",
      );
    }
    if (isEmpty(dbpath)) {
      logger.warn(
        { dbpath },
        "the database exists, but is empty: if the app has not meant that, delete() it and restore again",
      );
    }
    logger.info({ dbpath }, "the database exists; nothing to restore");
  };
  await withLimit(options.timeoutSeconds, options.signal, async (signal) => {
    let target: RestoreTarget | undefined;
    try {
      // With the lock: what another call is removing is not there any more, and what it has moved aside needs its -wal.
      const exists = await withDatabaseLock(job, signal, () => {
        recoverDatabase(dbpath);
        removeLeftovers(dbpath);
        return fileKind(dbpath) !== "missing";
      });
      if (exists) return keepExisting();
      const binary = findBinary();
      const file = new RestoreTarget(dbpath);
      target = file;
      const litestream = await identifyBinary(binary, { ...job, signal });
      const { blindTo } = litestream.dialect;
      // Also where it finds a backup: a newer one of the other kind may stand beside it.
      if (blindTo !== undefined) logger.warn({ s3 }, blindTo);
      const env = { ...job.env, ...litestream.dialect.env };
      const size = await withTurn(signal, async () => {
        logger.info({ s3, dbpath, litestream: litestream.version }, "restoring");
        const child = startChild(binary, restoreArgs(file.path, s3, ifReplicaExists), {
          ...job,
          env,
          signal,
        });
        const noBackup = child.line(NO_BACKUP);
        const end = await child.ended;
        const complaint = complaintOf(end.lines, [dbpath, s3]);
        if (signal.aborted) {
          const { reason, words } = complaint;
          const known = signal.reason.reason === "timeout" && reason !== "failed";
          throw known
            ? fail(reason, `not finished within ${options.timeoutSeconds} s: ${words}`)
            : signal.reason;
        }
        if (end.exitCode !== 0)
          throw fail(complaint.reason, complaint.words || "litestream ended without a word");
        const { size } = file;
        if (size === undefined && ifReplicaExists && (await noBackup) !== undefined) {
          // 0.5 says the same where the beginning of the backup is missing.
          const chain = await lookAtChain({ ...job, binary }, litestream.dialect, signal);
          if (signal.aborted) throw signal.reason;
          if (typeof chain === "object") throw fail("failed", chain.words);
          if (litestream.dialect.list !== undefined && chain !== "none") throw fail("failed", INCOMPLETE);
          return undefined;
        }
        if (!size) throw fail("failed", "litestream says that it succeeded, but left no database");
        await file.sync();
        return size;
      });
      if (size === undefined) {
        logger.info({ s3 }, "the replica holds no backup; nothing to restore");
        return;
      }
      const placed = await withDatabaseLock(job, signal, () => file.moveIntoPlace());
      if (!placed) return keepExisting();
      logger.info({ dbpath, bytes: size }, "restored");
    } catch (error) {
      if (error instanceof CutShort) {
        const { reason, waiting, cause } = error;
        const waited = waiting === undefined ? "" : `: ${waiting}`;
        const words =
          reason === "timeout"
            ? `not finished within ${options.timeoutSeconds} s${waited}`
            : "the call was aborted";
        throw fail(reason, words, cause);
      }
      if (error instanceof LitestreamError) throw error;
      throw fail("failed", messageOf(error), error);
    } finally {
      target?.discard();
    }
  });
}
