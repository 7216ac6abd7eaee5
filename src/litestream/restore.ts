import {
  fileKind,
  hasRecord,
  isEmpty,
  RestoreTarget,
  recoverDatabase,
  removeLeftovers,
  removeLitestreamFolder,
} from "../database-files.ts";
import { withDatabaseLock } from "../database-lock.ts";
import { ADVICE, DatabaseExistsError, LitestreamError, messageOf, RestoreError } from "../errors.ts";
import { identifyBinary, type Job } from "./binary.ts";
import { lookAtChain } from "./chain.ts";
import { startLitestream } from "./configuration.ts";
import { complaintOf, NO_BACKUP, restoreArgs } from "./dialect.ts";
import { CutShort, withLimit, withTurn } from "./limit.ts";
import { hasMovedOn, knownPosition, lookAtReplica, movedOn, remember } from "./writers.ts";

export interface RestoreOptions {
  /** Resolves without touching it where the database exists. Default: false, which rejects. */
  ifDbNotExists?: boolean;
  /** Resolves without a file where the replica path holds no backup, as on a first boot. Default: false, which rejects. */
  ifReplicaExists?: boolean;
  /**
   * With `ifDbNotExists`: goes on with the database that is here where another machine has written to the replica meanwhile;
   * the next replication then replaces that. Default: false, which rejects.
   */
  takeOver?: boolean;
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
  const keepExisting = async (signal: AbortSignal) => {
    if (!options.ifDbNotExists) throw new DatabaseExistsError(dbpath);
    if (fileKind(dbpath) === "other") {
      throw failure(
        job,
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
    await compareExisting(job, findBinary, options.takeOver === true, signal);
    logger.info({ dbpath }, "the database exists; nothing to restore");
  };
  const restoreMissing = async (signal: AbortSignal) => {
    // With the lock: what another call is removing is not there any more, and what it has moved aside needs its -wal.
    const exists = await withDatabaseLock(job, signal, () => {
      recoverDatabase(dbpath);
      removeLeftovers(dbpath);
      return fileKind(dbpath) !== "missing";
    });
    if (exists) return await keepExisting(signal);
    const binary = findBinary();
    const whole = { ...job, binary };
    const target = new RestoreTarget(dbpath);
    try {
      // Before the restore: what another machine writes in between is then noticed.
      const seen = await withTurn(signal, () => glance(whole, signal));
      const size = await download(whole, target, options, signal);
      if (size === undefined) {
        if (seen) remember(whole, seen.dialect, seen.position, false);
        logger.info({ s3 }, "the replica holds no backup; nothing to restore");
        return;
      }
      const placed = await withDatabaseLock(job, signal, () => target.moveIntoPlace());
      if (!placed) return await keepExisting(signal);
      if (seen) remember(whole, seen.dialect, seen.position, false);
      logger.info({ dbpath, bytes: size }, "restored");
    } finally {
      target.discard();
    }
  };
  await withLimit(options.timeoutSeconds, options.signal, restoreMissing).catch((error: unknown) => {
    if (error instanceof CutShort) {
      const { reason, waiting, cause } = error;
      const waited = waiting === undefined ? "" : `: ${waiting}`;
      const words =
        reason === "timeout"
          ? `not finished within ${options.timeoutSeconds} s${waited}`
          : "the call was aborted";
      throw failure(job, reason, words, cause);
    }
    if (error instanceof LitestreamError) throw error;
    throw failure(job, "failed", messageOf(error), error);
  });
}

/** The longest that a boot waits for a look at the replica, without which it goes on. */
const GLANCE_SECONDS = 5;

/** How far the replica has come; `undefined` where that can't be told just then. */
async function glance(job: Job, caller: AbortSignal) {
  return await withLimit(GLANCE_SECONDS, caller, async (signal) => {
    const { dialect } = await identifyBinary(job.binary, { ...job, signal });
    const seen = await lookAtReplica(job, dialect, signal);
    return seen === undefined || "reason" in seen ? undefined : { ...seen, dialect };
  }).catch((error: unknown) => {
    if (error instanceof CutShort && !caller.aborted) return undefined;
    throw error;
  });
}

/**
 * A machine that comes back with an old disk: its database may be older than the replica.
 * @throws RestoreError where another machine has written to the replica since, unless that is to be replaced
 */
async function compareExisting(
  job: Omit<Job, "binary">,
  findBinary: () => string,
  takeOver: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { dbpath, s3, logger } = job;
  // Built here, or from before there were records: nothing to compare.
  if (!hasRecord(dbpath)) return;
  let seen: Awaited<ReturnType<typeof glance>>;
  let whole: Job | undefined;
  try {
    const found = { ...job, binary: findBinary() };
    whole = found;
    seen = await withTurn(signal, () => glance(found, signal));
  } catch (error) {
    logger.warn({ s3 }, messageOf(error));
  }
  // The time that is up is no reason not to start: the database is here.
  if (signal.aborted && (signal.reason as CutShort).reason === "aborted") throw signal.reason;
  if (whole === undefined || seen === undefined) {
    logger.warn(
      { dbpath, s3 },
      "the replica can't be looked at just now: if another machine has written to it, the database here is the older one",
    );
    return;
  }
  const known = knownPosition(whole, seen.dialect);
  if (known === undefined || !hasMovedOn(known, seen.position)) return;
  const words = movedOn(seen.at);
  if (!takeOver) throw failure(job, "replica-moved", `the database is here, but ${words}`);
  logger.warn({ s3 }, `${words}: taking over`);
  removeLitestreamFolder(dbpath);
  remember(whole, seen.dialect, seen.position, false);
}

/**
 * Has litestream write the target, when its turn has come.
 * @returns its size in bytes; `undefined` where the replica holds no backup and that is fine
 */
async function download(
  job: Job,
  target: RestoreTarget,
  { ifReplicaExists = false, timeoutSeconds }: RestoreOptions,
  signal: AbortSignal,
): Promise<number | undefined> {
  const { dbpath, s3, logger, binary } = job;
  const { dialect, version } = await identifyBinary(binary, { ...job, signal });
  // Also where it finds a backup: a newer one of the other kind may stand beside it.
  if (dialect.blindTo !== undefined) logger.warn({ s3 }, dialect.blindTo);
  const env = { ...job.env, ...dialect.env };
  return await withTurn(signal, async () => {
    logger.info({ s3, dbpath, litestream: version }, "restoring");
    const args = restoreArgs(target.path, dbpath, ifReplicaExists);
    const child = startLitestream(job, args, { env, signal });
    const noBackup = child.line(NO_BACKUP);
    const end = await child.ended;
    const complaint = complaintOf(end.lines, [dbpath, s3]);
    if (signal.aborted) {
      const { reason, words } = complaint;
      const known = signal.reason.reason === "timeout" && reason !== "failed";
      throw known ? failure(job, reason, `not finished within ${timeoutSeconds} s: ${words}`) : signal.reason;
    }
    if (end.exitCode !== 0)
      throw failure(job, complaint.reason, complaint.words || "litestream ended without a word");
    const { size } = target;
    if (size === undefined && ifReplicaExists && (await noBackup) !== undefined) {
      // 0.5 says the same where the beginning of the backup is missing.
      const chain = await lookAtChain(job, dialect, signal);
      if (signal.aborted) throw signal.reason;
      if (typeof chain === "object") throw failure(job, "failed", chain.words);
      if (dialect.list !== undefined && chain !== "none") throw failure(job, "failed", INCOMPLETE);
      return undefined;
    }
    if (!size) throw failure(job, "failed", "litestream says that it succeeded, but left no database");
    await target.sync();
    return size;
  });
}

function failure(
  job: Omit<Job, "binary">,
  reason: RestoreError["reason"],
  words: string,
  cause?: unknown,
): RestoreError {
  const message = `${job.dbpath} could not be restored from ${job.s3}: ${job.redact(words)}. ${ADVICE[reason]}`;
  return new RestoreError(reason, message, { cause });
}
