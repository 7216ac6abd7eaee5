import {
  fileKind,
  fileOf,
  fingerprint,
  hasLitestreamFolder,
  identityOf,
  isGone,
  recoverDatabase,
  removeLitestreamFolder,
  sameFingerprint,
  walSalt,
} from "../database-files.ts";
import { withDatabaseLock } from "../database-lock.ts";
import {
  ADVICE,
  DatabaseNotFoundError,
  type FailureReason,
  LitestreamUnsupportedError,
  messageOf,
} from "../errors.ts";
import { OpenDatabase, wordsFor } from "../holders.ts";
import { noteProven } from "../known-files.ts";
import { processState } from "../process-state.ts";
import type { Position } from "../replica-record.ts";
import { adviceOn } from "./advice.ts";
import { identifyBinary, type Job, type Litestream } from "./binary.ts";
import { lookAtChain } from "./chain.ts";
import type { Dialect, Reading, Written } from "./dialect.ts";
import { CutShort, pause, type Turn, unlessCut, withLimit, withTurn } from "./limit.ts";
import { removeUnused } from "./removal.ts";
import { doubtOf } from "./store-check.ts";
import { CHANGING, LONGEST_PAUSE_MS, synchronise, TICK_MS } from "./synchronise.ts";
import { tend } from "./upkeep.ts";
import {
  afterTheOther,
  furthest,
  knowledgeOf,
  lookAtReplica,
  objectionTo,
  ownPosition,
  remember,
  UNSEEN,
  writeDown,
} from "./writers.ts";

export interface ReplicateOptions {
  /** How long it may take at most, in seconds: positive and finite. */
  timeoutSeconds: number;
  /** Leaves the local files in place. Default: false. */
  keepLocal?: boolean;
  /**
   * Goes on where another machine has written to the replica meanwhile, or where the database did not come from there: what the
   * replica holds is replaced by this one. Default: false.
   */
  takeOver?: boolean;
  /** Ends the call early, with the reason `aborted`. */
  signal?: AbortSignal;
}

/** Why a replication is not proven; `still-changing`: commits kept coming until the time was up. */
export type ReplicateFailure = FailureReason | "still-changing";

export type ReplicateResult =
  | {
      /** Everything committed is in the replica; without `keepLocal`, the local files are gone. */
      ok: true;
      durationMs: number;
      /** The version of litestream that did it. */
      litestream: string;
    }
  | {
      /** Not proven: the local database is still there. */
      ok: false;
      reason: ReplicateFailure;
      /** What failed, in litestream's own words where it had any, and what to do. */
      message: string;
      durationMs: number;
      /** The version of litestream; `unknown` where the time was up before it told. */
      litestream: string;
    };

type Failure = { ok: false; reason: ReplicateFailure; message: string };
type Outcome = { ok: true } | Failure;

/** What no second try mends. */
export const FINAL: ReadonlySet<ReplicateFailure> = new Set([
  "credentials",
  "bucket",
  "not-a-database",
  "foreign-backup",
]);

const AHEAD =
  "the replica goes on after what was uploaded now, and a restore would take that: another machine has written to it, or " +
  "the newest objects of its level 0 were deleted; use a new path in REPLICA_URL, or empty this one once nothing in it is needed any more";
const UNTOLD =
  "litestream did not say how it has read the database, as the versions do that this library knows, so that a commit may be missing";

/** The runs under way, by database. */
const running = processState("replications under way", () => new Map<string, Run>());

interface Run {
  readonly job: Job;
  readonly wanted: Wanted;
  readonly outcome: Promise<Outcome>;
  /** Whether its last look is over: what is committed from then on, its outcome says nothing of. */
  isProven: boolean;
}

/** What the caller wants besides the proof. */
type Wanted = Readonly<Required<Pick<ReplicateOptions, "keepLocal" | "takeOver">>>;

/**
 * Replicates until everything committed is proven to be in the replica, then removes the local files.
 * @throws DatabaseNotFoundError, LitestreamNotFoundError, LitestreamUnsupportedError
 */
export async function replicate(job: Job, options: ReplicateOptions): Promise<ReplicateResult> {
  const { timeoutSeconds, keepLocal = false, takeOver = false } = options;
  const wanted: Wanted = { keepLocal, takeOver };
  const start = performance.now();
  const endsAt = start + timeoutSeconds * 1000;
  let litestream: Litestream | undefined;
  const outcome = await withLimit(timeoutSeconds, options.signal, async (signal): Promise<Outcome> => {
    if (isGone(job.dbpath)) {
      throw new DatabaseNotFoundError(
        `There is no database at ${job.dbpath} to replicate. ${ADVICE["not-a-database"]}`,
      );
    }
    if (fileKind(job.dbpath) === "other") {
      return failure(
        job,
        "not-a-database",
        "it is a symbolic link, a folder or another thing that is no plain file",
      );
    }
    try {
      litestream = await identifyBinary(job.binary, { ...job, signal });
      const { dialect, version } = litestream;
      if (dialect.replicate === undefined) {
        throw new LitestreamUnsupportedError(
          `litestream ${version} (${litestream.file}) can't prove that a replication succeeded: upgrade to 0.5.6 or newer.`,
        );
      }
      return await shareRun(job, wanted, signal, timeoutSeconds, (onProven) =>
        withTurn(signal, (turn) =>
          prove(job, dialect, wanted, signal, { timeoutSeconds, endsAt, turn, onProven }),
        ),
      );
    } catch (error) {
      if (!(error instanceof CutShort)) throw error;
      const waited = error.waiting === undefined ? undefined : failure(job, "timeout", error.waiting);
      return cutFailure(job, signal, timeoutSeconds, waited);
    }
  });
  return {
    ...outcome,
    durationMs: Math.round(performance.now() - start),
    litestream: litestream?.version ?? "unknown",
  };
}

/** One run a database at a time. A call that wants the same as the run under way takes its outcome, by its own deadline. */
async function shareRun(
  job: Job,
  wanted: Wanted,
  signal: AbortSignal,
  timeoutSeconds: number,
  run: (onProven: () => void) => Promise<Outcome>,
): Promise<Outcome> {
  const key = fileOf(job.dbpath);
  for (let other = running.get(key); other !== undefined; other = running.get(key)) {
    // Releasing the lock takes a while, in which the app may commit. Only a database that is gone has nothing new.
    const isLate = other.isProven && !isGone(job.dbpath);
    const outcome = await unlessCut(
      other.outcome.catch(() => undefined),
      signal,
    );
    if (signal.aborted) return cutFailure(job, signal, timeoutSeconds);
    const same =
      !isLate &&
      other.wanted.keepLocal === wanted.keepLocal &&
      other.wanted.takeOver === wanted.takeOver &&
      (["s3", "endpoint", "region"] as const).every((name) => other.job[name] === job[name]) &&
      other.job.binary === job.binary &&
      other.job.env.AWS_ACCESS_KEY_ID === job.env.AWS_ACCESS_KEY_ID &&
      other.job.env.AWS_SECRET_ACCESS_KEY === job.env.AWS_SECRET_ACCESS_KEY;
    // A failure that was not final was that call's deadline: ours may be later.
    if (same && outcome && (outcome.ok || FINAL.has(outcome.reason))) return outcome;
  }
  const outcome = withDatabaseLock(job, signal, async () => {
    recoverDatabase(job.dbpath);
    if (fileKind(job.dbpath) === "missing") {
      throw new DatabaseNotFoundError(
        `The database at ${job.dbpath} has gone while another call was replicating or deleting it.`,
      );
    }
    return await run(() => {
      current.isProven = true;
    });
  });
  const current: Run = { job, wanted, outcome, isProven: false };
  running.set(key, current);
  try {
    return await outcome;
  } finally {
    running.delete(key);
  }
}

/**
 * The proof: look at the `-wal`, wait a tick, synchronise with a success that is known, look again. The same both
 * times: nothing was committed meanwhile, and so all there is was in what went up.
 */
async function prove(
  job: Job,
  dialect: Dialect,
  { keepLocal, takeOver }: Wanted,
  signal: AbortSignal,
  limits: { timeoutSeconds: number; endsAt: number; turn: Turn; onProven: () => void },
): Promise<Outcome> {
  const { timeoutSeconds, endsAt, turn, onProven } = limits;
  if (!keepLocal && new OpenDatabase(job.dbpath).isOpenHere()) {
    job.logger.warn(
      { dbpath: job.dbpath },
      "this process still has the database open; close it first: what is committed after the replication is lost",
    );
  }
  const admission = await admit(job, dialect, takeOver, signal);
  if ("ok" in admission) return admission;
  if (signal.aborted) return cutFailure(job, signal, timeoutSeconds, admission.last);
  let { position } = admission;
  let last: Failure | undefined;
  // What was checkpointed since an earlier call's run, 0.5 can miss: only a whole copy within this call is a good beginning.
  let copy: WholeCopy = hasLitestreamFolder(job.dbpath) ? "due" : "perhaps";
  let written: Omit<Written, "position"> = { first: undefined, snapshot: undefined };
  let copyMs = 0;
  let isTended = false;
  const database = identityOf(job.dbpath);
  const replaced = () => identityOf(job.dbpath) !== database;
  for (let wait = TICK_MS; !signal.aborted; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const look = fingerprint(job.dbpath);
    const reading = dialect.replicate?.reading?.(() => walSalt(job.dbpath));
    await pause(wait, signal);
    if (signal.aborted) break;
    if (replaced()) return failure(job, "failed", "it was removed or replaced meanwhile");
    remember(job, dialect, position, true);
    const began = performance.now();
    const synced = await synchronise(job, dialect, { anew: copy === "due", look, reading, signal });
    // What has gone up from here is this machine's own, also where it is told so by nothing but its files.
    if (dialect.replicate?.startsFresh) position = furthest(position, ownPosition(job.dbpath));
    if (replaced()) {
      return failure(
        job,
        "failed",
        "it was removed or replaced meanwhile, so that the replica may hold another one",
      );
    }
    // Each run of a litestream that says nothing of its reading is a whole copy.
    const read = reading ? reading.end() : "whole";
    const succeeded = !("reason" in synced);
    if (succeeded && read === "whole") copyMs = Math.max(copyMs, performance.now() - began);
    written = {
      first: least(written.first, reading?.first),
      snapshot: succeeded ? (reading?.snapshot ?? written.snapshot) : undefined,
    };
    copy = copyAfter(copy, read, succeeded);
    if (read === "gap") {
      // Until the whole copy is there, the newest state in the replica may be damaged.
      job.logger.warn(
        { dbpath: job.dbpath },
        "a new -wal was begun meanwhile, so that litestream may have missed a commit of another program: uploading a whole copy",
      );
      wait = TICK_MS;
    }
    if ("reason" in synced) {
      const { reason, words, said } = synced;
      // Ended by us, without a word of its own: what went wrong before tells more than a guess.
      if (signal.aborted && !said && (last !== undefined || reason === "failed")) break;
      last = failure(
        job,
        reason,
        words || "litestream ended without a word, or did not end when it was asked to",
      );
      if (FINAL.has(last.reason)) return last;
      if (dialect.replicate?.damaged.test(words)) {
        job.logger.warn(
          { dbpath: job.dbpath },
          `litestream can't read its own folder, which goes: ${job.redact(words)}`,
        );
        // Nothing else tells what this call has uploaded.
        position = furthest(position, ownPosition(job.dbpath));
        remember(job, dialect, position, true);
        removeLitestreamFolder(job.dbpath);
        copy = "due";
      }
      continue;
    }
    if (copy !== "done") {
      last = read === undefined ? failure(job, "failed", UNTOLD) : failure(job, ...CHANGING);
      continue;
    }
    const unchanged = () => !signal.aborted && sameFingerprint(synced.before, fingerprint(job.dbpath));
    const seen = unchanged() ? await lookAtChain(job, dialect, signal, written) : undefined;
    if (seen !== undefined && "words" in seen) {
      if (signal.aborted) break;
      last = failure(job, "failed", seen.words);
      continue;
    }
    const chain = seen?.chain;
    if (chain === "ahead") return failure(job, "failed", AHEAD);
    if (chain === "broken" || chain === "none") {
      last = failure(job, "failed", "objects of the backup are missing in the replica");
      job.logger.warn(
        { s3: job.s3 },
        "objects of the backup are missing in the replica: uploading a full copy",
      );
      copy = "due";
      continue;
    }
    if (seen !== undefined && chain === "whole" && unchanged() && !isTended) {
      isTended = true;
      await tend(job, dialect, { objects: seen.objects, written, copyMs, endsAt, signal });
    }
    if (chain === "whole" && unchanged()) {
      const note = () => {
        onProven();
        noteProven(job, synced.before);
      };
      if (keepLocal) {
        note();
        remember(job, dialect, furthest(position, ownPosition(job.dbpath)), false);
        return { ok: true };
      }
      const removal = await removeUnused(job, synced.before, signal, turn, note);
      if (removal !== "changed") {
        if (removal.ok || removal.reason === "failed") return removal;
        last = removal;
        break;
      }
      wait = TICK_MS;
    } else if (signal.aborted) break;
    last = failure(job, ...CHANGING);
  }
  if (last?.reason === CHANGING[0]) last = failure(job, CHANGING[0], CHANGING[1] + writersOf(job.dbpath));
  return cutFailure(job, signal, timeoutSeconds, last);
}

/** Who may be writing, at the end of a sentence. */
function writersOf(dbpath: string): string {
  const others = new OpenDatabase(dbpath).nearestOthers();
  return others.length === 0 ? "" : `; another process has it open: ${wordsFor(others)}`;
}

/**
 * Before the first upload: looks whether the replica holds what this machine does not know of.
 * @returns how far the replica has come; the failure where nothing may be uploaded; with the signal, what went wrong last
 * @throws FileSystemError where what this machine knows can't be read
 */
export async function admit(
  job: Job,
  dialect: Dialect,
  takeOver: boolean,
  signal: AbortSignal,
): Promise<Failure | { position: Position; last?: Failure | undefined }> {
  const knowledge = knowledgeOf(job, dialect);
  let last: Failure | undefined;
  for (let wait = TICK_MS; !signal.aborted; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const seen = await lookAtReplica(job, dialect, signal);
    if (seen !== undefined && "reason" in seen) {
      const { words, said } = seen;
      const reason = seen.reason === "no-backup" ? "failed" : seen.reason;
      if (signal.aborted && !said && (last !== undefined || reason === "failed")) break;
      last = failure(job, reason, words);
      if (FINAL.has(reason)) return last;
      await pause(wait, signal);
      continue;
    }
    const { position = {} } = seen ?? {};
    const holds = Object.keys(position).length > 0;
    const doubt = holds ? undefined : await doubtOf(job, dialect, signal);
    if (doubt !== undefined) {
      if (!signal.aborted || last === undefined) last = failure(job, "unreachable", doubt.words);
      await pause(wait, signal);
      continue;
    }
    const objection = seen && objectionTo(job.dbpath, knowledge, seen);
    if (objection !== undefined && !takeOver) return failure(job, objection.reason, objection.words);
    const isNew = "stranger" in knowledge || !knowledge.isLast;
    const written = (state: Parameters<typeof writeDown>[2]) => {
      try {
        writeDown(job, dialect, state);
        return true;
      } catch (error) {
        last = failure(job, "failed", messageOf(error));
        return false;
      }
    };
    // A kill may come before litestream's folder has gone, which tells of another replica: it says nothing of this one then.
    if (isNew && !written({ position, uploading: false, onlyRestored: true })) {
      await pause(wait, signal);
      continue;
    }
    // What litestream remembers is of another replica, or how this one was before, or of one that was started by hand.
    if (isNew || !knowledge.hasUploaded || objection !== undefined) removeLitestreamFolder(job.dbpath);
    // What goes up from here must not be taken for a stranger's, however this call ends.
    if (isNew && !written({ position, uploading: true })) {
      await pause(wait, signal);
      continue;
    }
    if (holds && "position" in knowledge && knowledge.position === undefined)
      job.logger.warn({ s3: job.s3 }, UNSEEN);
    if (objection !== undefined) job.logger.warn({ s3: job.s3 }, `${objection.words}: taking over`);
    const isAfterAnother = objection !== undefined || (isNew && holds);
    if (isAfterAnother) await afterTheOther(dialect, signal);
    return { position };
  }
  return { position: {}, last };
}

const least = (a: bigint | undefined, b: bigint | undefined) =>
  a !== undefined && (b === undefined || a < b) ? a : b;

/**
 * Whether a whole copy of this call is in the replica, and everything since: `due`: the next run begins with one;
 * `perhaps`: the next run may make one by itself.
 */
type WholeCopy = "due" | "perhaps" | "done";

/** How that stands after a run that has read so much. */
function copyAfter(before: WholeCopy, read: ReturnType<Reading["end"]>, succeeded: boolean): WholeCopy {
  if (read === "added") return before === "done" ? "done" : "due";
  if (read === "whole" && succeeded) return "done";
  // Nobody knows how far a copy came that failed.
  if (read !== undefined) return "due";
  // Where a failed run came to read nothing, nothing has changed.
  return succeeded && before === "done" ? "perhaps" : before;
}

export function failure(job: Job, reason: ReplicateFailure, words: string): Failure {
  // Once more: litestream's words may have lost an escape that hid a secret.
  const message = `${job.dbpath} is not proven to be in ${job.s3} and stays: ${job.redact(words)}. ${adviceOn(reason, job)}`;
  return { ok: false, reason, message };
}

/** The failure of a call that was cut short: what went wrong last tells more than the time that is up. */
export function cutFailure(job: Job, signal: AbortSignal, timeoutSeconds: number, last?: Failure): Failure {
  const { reason } = signal.reason as CutShort;
  if (reason === "aborted") return failure(job, "aborted", "the call was aborted");
  return last ?? failure(job, "timeout", `litestream gave no proof within ${timeoutSeconds} s`);
}
