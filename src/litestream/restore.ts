import {
  fileKind,
  inTheWay,
  isEmpty,
  RestoreTarget,
  recoverDatabase,
  removeLeftovers,
  removeLitestreamFolder,
} from "../database-files.ts";
import { withDatabaseLock } from "../database-lock.ts";
import {
  DatabaseExistsError,
  InvalidOptionError,
  LitestreamError,
  messageOf,
  RestoreError,
} from "../errors.ts";
import { noteRestored } from "../known-files.ts";
import { readRecords } from "../replica-record.ts";
import { lookAt } from "../untouched.ts";
import { adviceOn } from "./advice.ts";
import { identifyBinary, type Job } from "./binary.ts";
import type { Dialect, Seen } from "./dialect.ts";
import { assertIntegrityCheck, download, type Failed } from "./download.ts";
import { beginLook, glance, type Look } from "./glance.ts";
import { CutShort, pause, withLimit, withTurn } from "./limit.ts";
import { believed } from "./store-check.ts";
import { afterTheOther, knowledgeOf, objectionTo, remember, writeDown } from "./writers.ts";

export interface RestoreOptions {
  /** Resolves without touching it where the database exists. Default: false, which rejects. */
  ifDbNotExists?: boolean;
  /** Resolves without a file where the replica path holds no backup, as on a first boot. Default: false, which rejects. */
  ifReplicaExists?: boolean;
  /**
   * With `ifDbNotExists`: goes on with the database that is here where another machine has written to the replica meanwhile, or
   * where the database did not come from there; the next replication then replaces that. Default: false, which rejects.
   */
  takeOver?: boolean;
  /** How long it may take at most, in seconds. Default: as long as litestream takes (0.5 tries an unreachable store for minutes). */
  timeoutSeconds?: number;
  /** Ends the call early; it then rejects with the reason `aborted`. */
  signal?: AbortSignal;
  /**
   * Restores the state of that moment: what had arrived in the replica by the end of that second, by the store's clock. What
   * was committed by then, but replicated later, is not in it. A moment after the last upload gives the newest state; one
   * before the first backup rejects. `historyHours` says how far back there is one. Where `replicate()` runs, litestream 0.5 keeps
   * only steps of 30 s after five minutes: it is then the last step that is left from before. A `Date`, or ISO 8601 with a time zone such as
   * `2026-11-24T12:00:00Z`.
   *
   * Without `to` it takes the database back: the next replication makes this the newest state, and what came after it stays
   * in the history. Default: the newest state.
   */
  timestamp?: Date | string;
  /**
   * Has litestream check the restored database, with SQLite's `quick_check` or `integrity_check`, before it is put into
   * place; one that fails rejects. Takes litestream 0.5.10 or newer. Default: unchecked.
   */
  integrityCheck?: "quick" | "full";
  /**
   * Restores to this file and leaves everything at `dbpath` alone; relative to the working directory. Its folder is made where
   * it is missing, nothing is overwritten, and `ifDbNotExists` is about this file. Not with `takeOver`. Default: `dbpath`.
   */
  to?: string;
}

/** The options once they are known to be usable. */
interface RestoreRequest extends Omit<RestoreOptions, "timestamp"> {
  readonly moment: Date | undefined;
}

/** @throws InvalidOptionError for what can't be meant */
export function requestOf({ timestamp, ...options }: RestoreOptions): RestoreRequest {
  const { integrityCheck, takeOver, to } = options;
  if (integrityCheck !== undefined && integrityCheck !== "quick" && integrityCheck !== "full") {
    throw new InvalidOptionError('`integrityCheck` must be "quick" or "full".');
  }
  if (to !== undefined && takeOver) {
    throw new InvalidOptionError("`takeOver` is for the database itself: it says nothing with `to`.");
  }
  return { ...options, moment: timestamp === undefined ? undefined : momentOf(timestamp) };
}

/** Without a zone it would be another moment on another machine. */
const ISO_WITH_ZONE = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)$/;

function momentOf(timestamp: unknown): Date {
  const day = typeof timestamp === "string" ? ISO_WITH_ZONE.exec(timestamp)?.[1] : undefined;
  const moment = new Date(
    timestamp instanceof Date || day !== undefined ? (timestamp as Date | string) : Number.NaN,
  );
  // V8 takes the 31st of February for the 3rd of March.
  const exists = day === undefined || isoOf(new Date(day))?.startsWith(day);
  const iso = isoOf(moment);
  // Other years have more digits, and are no times of a backup.
  if (exists && iso !== undefined && /^\d{4}-/.test(iso)) return moment;
  throw new InvalidOptionError(
    "`timestamp` must be a valid Date, or ISO 8601 with a time zone such as 2026-11-24T12:00:00Z or 2026-11-24T13:00:00+01:00.",
  );
}

const isoOf = (date: Date) => (Number.isNaN(Number(date)) ? undefined : date.toISOString());

/** How long a call without a deadline tries again; on an unreachable store 0.5 has then long tried by itself. */
const PATIENCE_MS = 10_000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 4000;

const APPEARED =
  "litestream found no backup, but the replica's list shows one: another machine may have written it just now";
const AGAIN =
  "the replica could be looked at only after the restore, so that another machine may have written to it meanwhile: restoring once more";

/**
 * Restores to a file of its own and moves it into place last.
 * @param job `dbpath`: where to
 * @param findBinary called once it is clear that litestream is needed
 * @throws DatabaseExistsError, RestoreError, LitestreamNotFoundError, LitestreamUnsupportedError
 */
export async function restore(
  job: Omit<Job, "binary">,
  findBinary: () => string,
  request: RestoreRequest,
): Promise<void> {
  const { dbpath, s3, logger } = job;
  const { moment, to, timeoutSeconds } = request;
  /** With the lock: what another call is removing is not there any more, and what it has moved aside needs its -wal. */
  const keepExisting = (signal: AbortSignal) =>
    withDatabaseLock(job, signal, async () => {
      if (to === undefined) recoverDatabase(dbpath);
      if (to === undefined) removeLeftovers(dbpath);
      if (fileKind(dbpath) === "missing") return false;
      await assertKept(signal);
      return true;
    });
  const assertKept = async (signal: AbortSignal) => {
    if (!request.ifDbNotExists) throw exists(dbpath, to);
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
    if (to === undefined) await compareExisting(job, findBinary, request.takeOver === true, signal);
    if (moment === undefined) logger.info({ dbpath }, "the database exists; nothing to restore");
    else logger.warn({ dbpath }, `the database exists and stays: not the state of ${moment.toISOString()}`);
  };
  let last: Failed | undefined;
  const restoreMissing = async (signal: AbortSignal) => {
    if (await keepExisting(signal)) return;
    if (to !== undefined && inTheWay(dbpath) !== undefined) throw exists(dbpath, to);
    const whole = { ...job, binary: findBinary() };
    const litestream = await identifyBinary(whole.binary, { ...job, signal });
    const { dialect, version } = litestream;
    if (request.integrityCheck !== undefined) await assertIntegrityCheck(whole, litestream, signal);
    // Also where it finds a backup: a newer one of the other kind may stand beside it.
    if (dialect.blindTo !== undefined) logger.warn({ s3 }, dialect.blindTo);
    logger.info({ s3, dbpath, litestream: version, ...(moment && { timestamp: moment }) }, "restoring");
    const start = performance.now();
    /** How far the replica had come before the next try, where that is known. */
    let before: Seen | undefined;
    for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
      const outcome = await tryOnce(whole, dialect, { ...request, before }, signal);
      before = undefined;
      if (outcome === "placed" || outcome === "no-backup") return;
      if (outcome === "exists") {
        if (await keepExisting(signal)) return;
        // It is there for a `to`, or has gone again meanwhile.
        if (to !== undefined) throw exists(dbpath, to);
        continue;
      }
      if ("seenLate" in outcome) {
        before = outcome.seenLate;
        logger.info({ s3, dbpath }, AGAIN);
        continue;
      }
      // One that was stopped without a word tells less than what went wrong before.
      if (!signal.aborted || outcome.reason !== "failed") last = outcome;
      if (signal.aborted) throw signal.reason;
      const { reason, words, advice, passes } = outcome;
      const patient = timeoutSeconds !== undefined || performance.now() - start < PATIENCE_MS;
      if (!passes || !patient) throw failure(job, reason, words, { advice });
      logger.warn({ s3, dbpath, reason }, `the restore is tried again: ${job.redact(words)}`);
      await pause(wait, signal);
      if (signal.aborted) throw signal.reason;
    }
  };
  await withLimit(timeoutSeconds, request.signal, restoreMissing).catch((error: unknown) => {
    if (error instanceof CutShort) {
      const { reason, waiting, cause } = error;
      if (reason === "aborted") throw failure(job, reason, "the call was aborted", { cause });
      const why = waiting ?? last?.words;
      const words = `not finished within ${timeoutSeconds} s${why === undefined ? "" : `: ${why}`}`;
      throw failure(job, (waiting === undefined && last?.reason) || reason, words, { cause });
    }
    if (error instanceof LitestreamError) throw error;
    throw failure(job, "failed", messageOf(error), { cause: error });
  });
}

function exists(dbpath: string, to: string | undefined): DatabaseExistsError {
  return to === undefined
    ? new DatabaseExistsError(dbpath)
    : new DatabaseExistsError(inTheWay(dbpath) ?? dbpath, "Remove it, or choose another path for `to`.");
}

/**
 * One try, under a name of its own: nothing of it is left where it has failed.
 * @param request `before`: a look at the replica from before this try; default: it takes one
 * @returns `seenLate`: what the replica holds could be seen only after the restore
 */
async function tryOnce(
  job: Job,
  dialect: Dialect,
  request: RestoreRequest & { readonly before: Seen | undefined },
  signal: AbortSignal,
): Promise<"placed" | "exists" | "no-backup" | Failed | { readonly seenLate: Seen }> {
  const { dbpath, s3, logger } = job;
  const { to, before } = request;
  const isOwn = to === undefined;
  const target = new RestoreTarget(dbpath, isOwn);
  let look: Look | undefined;
  try {
    // Before the restore: what another machine writes in between is then noticed. The newest position, also where an older
    // state is asked for: that is to replace what came after it.
    const looks = isOwn && dialect.position !== undefined && before === undefined;
    look = looks ? beginLook(job, signal) : undefined;
    await look?.begun();
    const got = await withTurn(signal, async () =>
      believed(job, dialect, await download(job, dialect, target, request, signal), signal),
    );
    if ("reason" in got) return got;
    const { seen, isLate } = (await look?.seen()) ?? { seen: before, isLate: false };
    const holds = seen !== undefined && Object.keys(seen.position).length > 0;
    if (got.size === undefined) {
      // With another machine's first backup remembered as known, an empty database would replace it.
      if (holds) return { reason: "failed", words: APPEARED, passes: true };
      if (seen) remember(job, dialect, seen.position, false);
      logger.info({ s3 }, "the replica holds no backup; nothing to restore");
      return "no-backup";
    }
    if (isLate && holds) return { seenLate: seen };
    const restored = lookAt(target.path);
    // Before the database is there: without it, this machine would be a stranger to its own backup, as after a kill in between.
    const know = () =>
      isOwn && writeDown(job, dialect, { position: seen?.position, uploading: false, onlyRestored: true });
    const placed = await withDatabaseLock(job, signal, () => target.moveIntoPlace(know));
    if (!placed) return "exists";
    if (isOwn) noteRestored(job, restored);
    logger.info({ dbpath, bytes: got.size }, "restored");
    return "placed";
  } finally {
    target.discard();
    await look?.end();
  }
}

/**
 * A machine that comes back with an old disk, whose database may be older than the replica, or with one that did not come from
 * there. To be called with the database's lock: what is known may change.
 * @throws RestoreError where the replica holds what this machine does not know of, unless that is to be replaced
 * @throws FileSystemError where what this machine knows can't be read, or written down
 */
async function compareExisting(
  job: Omit<Job, "binary">,
  findBinary: () => string,
  takeOver: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { dbpath, s3, logger } = job;
  readRecords(dbpath); // throws where it can't be read, also where the replica can't be
  let glanced: Awaited<ReturnType<typeof glance>>;
  let whole: Job | undefined;
  try {
    const found = { ...job, binary: findBinary() };
    whole = found;
    glanced = await withTurn(signal, () => glance(found, signal));
  } catch (error) {
    logger.warn({ s3 }, messageOf(error));
  }
  // The time that is up is no reason not to start: the database is here.
  if (signal.aborted && (signal.reason as CutShort).reason === "aborted") throw signal.reason;
  if (whole === undefined || glanced === undefined) {
    logger.warn(
      { dbpath, s3 },
      "the replica can't be looked at just now: if another machine has written to it, the database here is the older one",
    );
    return;
  }
  const { seen, dialect } = glanced;
  const objection = objectionTo(dbpath, knowledgeOf(whole, dialect), seen);
  if (objection === undefined) return;
  const { reason, words } = objection;
  if (!takeOver) throw failure(job, reason, `the database is here, but ${words}`);
  logger.warn({ s3 }, `${words}: taking over`);
  // As in a restore: a kill may come before that folder has gone.
  writeDown(whole, dialect, { position: seen.position, uploading: false, onlyRestored: true });
  removeLitestreamFolder(dbpath);
  await afterTheOther(dialect, signal);
}

function failure(
  job: Omit<Job, "binary">,
  reason: RestoreError["reason"],
  words: string,
  { advice, cause }: { advice?: string | undefined; cause?: unknown } = {},
): RestoreError {
  const message = `${job.dbpath} could not be restored from ${job.s3}: ${job.redact(words)}. ${adviceOn(reason, job, advice)}`;
  return new RestoreError(reason, message, { cause });
}
