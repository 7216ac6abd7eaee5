import { setTimeout as sleep } from "node:timers/promises";
import {
  ageOf,
  type Fingerprint,
  fileKind,
  fileOf,
  fingerprint,
  hasLitestreamFolder,
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
  InvalidOptionError,
  LitestreamError,
  LitestreamUnsupportedError,
  messageOf,
  ReplicationError,
} from "../errors.ts";
import { unlessThrown } from "../known-files.ts";
import { processState } from "../process-state.ts";
import type { Position } from "../replica-record.ts";
import { identifyBinary, type Job } from "./binary.ts";
import { startContinuous } from "./configuration.ts";
import { complaintOf, type Dialect } from "./dialect.ts";
import { assertTimeout, CutShort, pause, unlessCut, withLimit, withTurn } from "./limit.ts";
import { DatabaseWatch, statOf } from "./replaced.ts";
import { ReplicaWatch } from "./replica-watch.ts";
import {
  admit,
  cutFailure,
  FINAL,
  failure,
  type ReplicateFailure,
  type ReplicateOptions,
  type ReplicateResult,
  replicate,
} from "./replicate.ts";
import { synchronise } from "./synchronise.ts";
import { BETWEEN_GENERATIONS_MS, furthest, ownPosition, remember } from "./writers.ts";

export interface ContinuousOptions {
  /** How long the first synchronisation may take at most, in seconds: positive and finite. It is a whole copy of the database. */
  startTimeoutSeconds: number;
  /** How often what was committed goes up, in seconds: at most so much is lost with the machine, and what an upload takes. Default: 1. */
  syncIntervalSeconds?: number;
  /** As in `replicateOnce`. Default: false. */
  takeOver?: boolean;
  /** Called when what is committed does not get into the replica any more; with why, in words. */
  onFailing?: (message: string) => void;
  /** Called when everything is in the replica again. */
  onRecovered?: () => void;
  /** Ends the start early, with the reason `aborted`. Nothing more: what runs is ended by `stop`. */
  signal?: AbortSignal;
}

export interface StopOptions extends Pick<ReplicateOptions, "timeoutSeconds" | "signal"> {
  /** Removes the local files once it is proven. Default: false. */
  deleteLocal?: boolean;
}

export interface ReplicationStatus {
  /** Whether there is a litestream. That it replicates is another thing: `failingSince` is then `undefined`. */
  readonly running: boolean;
  /** Since when there is one, or none. */
  readonly since: Date;
  /** When litestream last said that what it had read is in the replica. 0.3 says so only after a commit. */
  readonly lastSync: Date | undefined;
  /** What went wrong last, also where it has recovered. */
  readonly lastError: string | undefined;
  /** Since when what is committed does not get into the replica; `undefined` while it does. */
  readonly failingSince: Date | undefined;
  /** How many times litestream was started again. */
  readonly restarts: number;
}

/** What replicates a database for as long as the app lives. It does not keep the process from ending. */
export interface Replication extends AsyncDisposable {
  status(): ReplicationStatus;
  /**
   * Ends it and proves that everything committed is in the replica, as `replicateOnce` does. It is over also where that fails;
   * the local files are then there. A second call takes the outcome of the first.
   * @throws as `replicateOnce`
   */
  stop(options: StopOptions): Promise<ReplicateResult>;
}

const POLL_MS = 250;
/** Longer than litestream takes to notice a commit, and to upload a little. */
const SILENCE_MS = 10_000;
/**
 * A request that hangs never ends by itself, and never is one tried again: litestream is then started anew, and so is the
 * whole copy with which it begins. Doubled each time.
 */
const PATIENCE_MS = 30_000;
const MAX_PATIENCE_MS = 16 * 60_000;
const MIN_BACKOFF_MS = 1000;
const MAX_BACKOFF_MS = 60_000;
/** One that ends after so long a time has not been started in vain. */
const STEADY_MS = 60_000;
/** How often the replica is looked at while litestream runs: so long another machine, or a store that loses objects, may go on unnoticed. */
const RIVAL_MS = 30_000;
/** The longest that a look at the replica may take before litestream is started again. */
const LOOK_SECONDS = 30;
/** How long litestream may take for its last synchronisation where the proof comes anyway. */
const END_MS = 5000;
const UNBEGUN_END_MS = 100;
/** A file that was put into the place of the database must be left alone for so long before litestream opens that. */
const SETTLED_MS = 1000;
const DISPOSE_SECONDS = 30;
const MAX_LINES = 50;
const REPLACED =
  "the database file was removed, or replaced by another one, while it was replicated; a whole copy of the one that is there goes up";

/** Those of this process, by database. */
const underWay = processState("continuous replications", () => new Map<string, Supervisor>());

/**
 * Replicates until it is stopped; resolves once the first synchronisation is in the replica.
 * @throws ReplicationError, DatabaseNotFoundError, LitestreamUnsupportedError, LitestreamNotFoundError
 */
export async function replicateContinuously(job: Job, options: ContinuousOptions): Promise<Replication> {
  const { startTimeoutSeconds, syncIntervalSeconds = 1 } = options ?? {};
  assertTimeout(startTimeoutSeconds);
  assertTimeout(syncIntervalSeconds);
  for (const name of ["onFailing", "onRecovered"] as const) {
    if (options[name] !== undefined && typeof options[name] !== "function")
      throw new InvalidOptionError(`${name} must be a function; it is of the type ${typeof options[name]}.`);
  }
  if (isGone(job.dbpath)) {
    throw new DatabaseNotFoundError(
      `There is no database at ${job.dbpath} to replicate. ${ADVICE["not-a-database"]}`,
    );
  }
  const key = fileOf(job.dbpath);
  if (underWay.has(key)) {
    throw new LitestreamError(
      "ALREADY_REPLICATING",
      `${job.dbpath} is being replicated continuously already: use what the first call of replicate() gave, or stop that first.`,
    );
  }
  const supervisor = new Supervisor(job, options, syncIntervalSeconds);
  underWay.set(key, supervisor);
  void supervisor.over.then(() => underWay.delete(key));
  await supervisor.start(startTimeoutSeconds);
  let stopping: Promise<ReplicateResult> | undefined;
  const stop = (options: StopOptions) => {
    assertTimeout(options?.timeoutSeconds);
    const { timeoutSeconds, deleteLocal = false, signal } = options;
    const how = { timeoutSeconds, keepLocal: !deleteLocal, ...(signal === undefined ? {} : { signal }) };
    stopping ??= afterReplication(job, how, (rest) => replicate(job, rest));
    return stopping;
  };
  return {
    status: () => supervisor.status(),
    stop: async (how) => await stop(how),
    [Symbol.asyncDispose]: async () => {
      if (supervisor.ended) return;
      const result = await stop({ timeoutSeconds: DISPOSE_SECONDS });
      if (!result.ok) job.logger.error({ dbpath: job.dbpath, reason: result.reason }, result.message);
    },
  };
}

/** The proof, after the continuous replication of the database, if there is one in this process, has been ended. */
export async function afterReplication(
  job: Job,
  options: ReplicateOptions,
  prove: (options: ReplicateOptions) => Promise<ReplicateResult>,
): Promise<ReplicateResult> {
  const start = performance.now();
  const ended = await endReplication(job.dbpath, (options.timeoutSeconds * 1000) / 2);
  if (!ended) return await prove(options);
  const tookMs = performance.now() - start;
  const result = await prove({
    ...options,
    timeoutSeconds: Math.max(options.timeoutSeconds - tookMs / 1000, Number.MIN_VALUE),
  });
  return { ...result, durationMs: result.durationMs + Math.round(tookMs) };
}

/** @returns whether there was one */
export async function endReplication(dbpath: string, withinMs = END_MS): Promise<boolean> {
  const supervisor = underWay.get(fileOf(dbpath));
  await supervisor?.end(Math.min(withinMs, END_MS));
  return supervisor !== undefined;
}

/** Why a litestream is no more, or was not started. */
type End = { reason: ReplicateFailure; message: string };

/** One litestream after another, until it is ended. */
class Supervisor {
  /** Resolves when there is no litestream any more, and none will come. */
  readonly over: Promise<void>;
  ended = false;
  readonly #job: Job;
  readonly #options: ContinuousOptions;
  readonly #syncIntervalSeconds: number;
  /** Its reason is a `CutShort`. */
  readonly #stop = new AbortController();
  #endMs = END_MS;
  #setOver = () => {};
  /** Called once, with the first synchronisation. */
  #setStarted = () => {};
  #started = false;
  #last: End | undefined;
  #running = false;
  #since = new Date();
  #lastSync: Date | undefined;
  #failingSince: Date | undefined;
  #restarts = 0;
  /** Whether a whole copy must go up before the next litestream. */
  #copyIsDue = false;
  #patienceMs = PATIENCE_MS;
  /** Of the litestream that runs. */
  #database: DatabaseWatch | undefined;
  #isReplaced = false;
  /** How the files looked when everything was in the replica; since when they look different. */
  #covered: Fingerprint | undefined;
  #pendingSince: number | undefined;

  constructor(job: Job, options: ContinuousOptions, syncIntervalSeconds: number) {
    this.#job = job;
    this.#options = options;
    this.#syncIntervalSeconds = syncIntervalSeconds;
    this.over = new Promise((resolve) => {
      this.#setOver = resolve;
    });
  }

  async start(timeoutSeconds: number): Promise<void> {
    const job = this.#job;
    const started = new Promise<true>((resolve) => {
      this.#setStarted = () => resolve(true);
    });
    try {
      await withLimit(timeoutSeconds, this.#options.signal, async (signal) => {
        signal.addEventListener("abort", () => this.#stop.abort(signal.reason), { once: true });
        if (signal.aborted) throw signal.reason;
        const { dialect, version, file } = await identifyBinary(job.binary, { ...job, signal });
        if (dialect.continuous === undefined) {
          throw new LitestreamUnsupportedError(
            `litestream ${version} (${file}) can't prove that a replication succeeded: upgrade to 0.5.6 or newer.`,
          );
        }
        const run = withDatabaseLock(job, this.#stop.signal, async (keep) => {
          recoverDatabase(job.dbpath);
          await this.#run(dialect, keep);
        }).finally(() => this.#setEnded());
        // Without a first synchronisation it ends by its failure alone.
        if ((await Promise.race([started, run])) !== true) throw this.#stop.signal.reason;
        run.catch((error: unknown) => job.logger.error({ dbpath: job.dbpath }, messageOf(error)));
      });
    } catch (error) {
      this.#setEnded();
      if (!(error instanceof CutShort)) throw error;
      const waited = error.waiting === undefined ? undefined : failure(job, "timeout", error.waiting).message;
      const { reason, message } =
        error.reason === "timeout" && waited === undefined && this.#last !== undefined
          ? this.#last
          : cutFailure(job, this.#stop.signal, timeoutSeconds);
      throw new ReplicationError(reason, waited ?? message, { cause: error.cause });
    }
  }

  /** Ends it; litestream has so long for its last synchronisation. */
  async end(withinMs: number): Promise<void> {
    // At its end litestream may write what it has of the old file into the new one.
    const isReplaced = await Promise.race([
      this.#database?.isReplaced({ atOnce: true }),
      sleep(withinMs / 2, false, { ref: false }),
    ]);
    this.#endMs = isReplaced ? 0 : withinMs;
    this.#stop.abort(new CutShort("aborted"));
    await this.over;
  }

  status(): ReplicationStatus {
    return {
      running: this.#running,
      since: this.#since,
      lastSync: this.#lastSync,
      lastError: this.#last?.message,
      failingSince: this.#failingSince,
      restarts: this.#restarts,
    };
  }

  #setEnded(): void {
    this.ended = true;
    this.#setOver();
  }

  async #run(dialect: Dialect, keep: number | undefined): Promise<void> {
    const { dbpath, logger } = this.#job;
    const { signal } = this.#stop;
    for (let backoff = MIN_BACKOFF_MS; ; ) {
      const begin = performance.now();
      let end: End;
      try {
        end = await this.#live(dialect, keep);
      } catch (error) {
        if (!this.#started || signal.aborted) throw error;
        const late = error instanceof CutShort;
        end = late
          ? failure(this.#job, "timeout", error.waiting ?? "the replica could not be listed")
          : { reason: "failed", message: messageOf(error) };
      }
      if (signal.aborted) {
        if (this.#started) logger.info({ dbpath }, "continuous replication has ended");
        else this.#last ??= end;
        return;
      }
      if (!this.#started && FINAL.has(end.reason)) throw new ReplicationError(end.reason, end.message);
      if (!this.#started && end.reason === "replica-moved")
        throw new ReplicationError(end.reason, end.message);
      this.#fail(end);
      if (performance.now() - begin > STEADY_MS) backoff = MIN_BACKOFF_MS;
      const next = end.reason === "replica-moved" ? "the replica is looked at" : "litestream is started";
      logger.warn({ dbpath, inMs: backoff }, `${next} again: ${end.message}`);
      await sleep(backoff, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      backoff = Math.min(backoff * 2, MAX_BACKOFF_MS);
      if (this.#started) this.#restarts += 1;
    }
  }

  /** One litestream, from the look at the replica before it to its end. */
  async #live(dialect: Dialect, keep: number | undefined): Promise<End> {
    const job = this.#job;
    const { signal } = this.#stop;
    const { continuous, replicate: how } = dialect;
    if (continuous === undefined || how === undefined) throw new TypeError("this litestream can't go on");
    for (let look = ""; this.#isReplaced && look !== statOf(job.dbpath) && !signal.aborted; ) {
      look = statOf(job.dbpath);
      await sleep(SETTLED_MS, undefined, { signal, ref: false }).catch(() => {});
    }
    this.#isReplaced = false;
    if (signal.aborted) return cutFailure(job, signal, 0);
    if (fileKind(job.dbpath) !== "file") {
      return failure(job, "not-a-database", "there is no plain file in its place");
    }
    const admission = await withLimit(this.#started ? LOOK_SECONDS : undefined, signal, (limit) =>
      withTurn(limit, () => admit(job, dialect, this.#options.takeOver === true, limit)).then((admitted) =>
        "ok" in admitted || !limit.aborted
          ? admitted
          : (admitted.last ?? failure(job, "timeout", "the replica could not be listed")),
      ),
    );
    if ("ok" in admission) return admission;
    let position = this.#own(dialect, admission.position);
    if (how.startsFresh) {
      const age = hasLitestreamFolder(job.dbpath) ? 0 : ageOf(job.dbpath);
      if (age < BETWEEN_GENERATIONS_MS) await pause(BETWEEN_GENERATIONS_MS - age, signal);
    }
    const database = await DatabaseWatch.begin(job, signal);
    if (signal.aborted) return cutFailure(job, signal, 0);
    // What was committed between two runs, litestream 0.5 can miss: each begins with a whole copy. With nothing to go on from,
    // it makes one by itself, unless the newest object of the replica fits to the -wal.
    const copied = !how.startsFresh && (this.#copyIsDue || hasLitestreamFolder(job.dbpath));
    if (how.startsFresh) removeLitestreamFolder(job.dbpath);
    else if (copied) {
      const seconds = this.#started ? this.#patienceMs / 1000 : undefined;
      this.#patienceMs = Math.min(this.#patienceMs * 2, MAX_PATIENCE_MS);
      const run = { anew: true, look: undefined, reading: undefined };
      const synced = await withLimit(seconds, signal, (limit) =>
        withTurn(limit, () => synchronise(job, dialect, { ...run, signal: limit })).then((synced) =>
          "reason" in synced && limit.aborted
            ? ({ reason: "timeout", words: `a whole copy was not up after ${seconds} s` } as const)
            : synced,
        ),
      );
      if (signal.aborted) return cutFailure(job, signal, 0);
      if ("reason" in synced) {
        if (how.damaged.test(synced.words)) {
          // Nothing else tells what this run has uploaded.
          this.#own(dialect, position);
          removeLitestreamFolder(job.dbpath);
        }
        return failure(job, synced.reason, synced.words || "litestream ended without a word");
      }
    }

    let cut = (_: End) => {};
    const cutShort = new Promise<End>((resolve) => {
      cut = resolve;
    });
    const lines: string[] = [];
    const reading = how.reading?.(() => walSalt(job.dbpath));
    // In timers and listeners, where an error would end the app: files that can't be looked at prove nothing.
    const now = () => unlessThrown(() => fingerprint(job.dbpath));
    let latest = now();
    let before = latest;
    const onLook = () => {
      before = latest;
      latest = now();
    };
    const follow = continuous.following({ now, before: () => before });
    const life = new AbortController();
    const replica = new ReplicaWatch(job, dialect, () => position, life.signal);
    let synced = false;
    let isUp = false;
    let isHeld = false;
    let over = false;
    this.#pendingSince = performance.now();
    this.#covered = undefined;
    const onLine = (line: string, shown: string) => {
      lines.push(shown);
      if (lines.length > MAX_LINES) lines.shift();
      // What it says at its end changes nothing any more.
      if (over) return;
      if (continuous.mute.test(line)) mute();
      if (!synced) reading?.see(line);
      replica.hear(line);
      const heard = follow(line);
      if (heard !== undefined) isUp = heard !== "failing";
      if (heard === "failing") {
        const { reason, words } = complaintOf([shown], [job.dbpath, job.s3]);
        const end = failure(job, reason === "no-backup" ? "failed" : reason, words);
        if (!this.#started && FINAL.has(end.reason)) cut(end);
        this.#fail(end);
      } else if (heard !== undefined) {
        const read = synced || reading === undefined ? "whole" : reading.end();
        this.#copyIsDue = read !== "whole" && !(copied && read === "added");
        if (this.#copyIsDue) return cut(failure(job, "failed", "litestream did not begin with a whole copy"));
        const isFirst = !synced;
        synced = true;
        unlessThrown(() => database.opened());
        if (how.startsFresh) position = this.#own(dialect, position);
        this.#synced(heard.synced);
        if (isHeld) this.#held();
        else if (isFirst) void untilHeld();
      }
    };
    // The word of litestream, and of the store, is not enough: the list must show the first of it.
    const untilHeld = async () => {
      for (let wait = POLL_MS; !over; wait = Math.min(wait * 2, RIVAL_MS)) {
        const seen = await replica.look();
        if (over) return;
        if (typeof seen === "object") return cut(seen);
        isHeld = seen === "held";
        if (isHeld) return isUp ? this.#held() : undefined;
        await sleep(wait, undefined, { signal: life.signal, ref: false }).catch(() => {});
      }
    };
    const mute = () => {
      muted = true;
      cut(failure(job, "failed", "this litestream does not say when it has uploaded"));
    };
    let muted = false;
    const { env } = dialect;
    const child = startContinuous(job, continuous.args, this.#syncIntervalSeconds, {
      env: { ...job.env, ...env },
      keep,
      onLook,
      onLine,
    });
    this.#setRunning(true);
    this.#database = database;
    const timer = setInterval(() => {
      try {
        this.#watch(cut);
      } catch (error) {
        this.#fail(failure(job, "failed", messageOf(error)));
      }
      void database.isReplaced().then((isReplaced) => {
        if (!isReplaced) return;
        this.#isReplaced = true;
        cut(failure(job, "failed", REPLACED));
      });
    }, POLL_MS).unref();
    const looks = setInterval(() => {
      void replica.look().then((seen) => typeof seen === "object" && cut(seen));
    }, RIVAL_MS).unref();
    const end = await unlessCut(
      Promise.race([
        cutShort,
        child.ended.then(({ how, startError }): End => {
          const { words, reason } = complaintOf(lines, [job.dbpath, job.s3]);
          const ended =
            startError === undefined ? `it ended by itself (${how})` : `it did not start (${startError})`;
          return failure(
            job,
            reason === "no-backup" ? "failed" : reason,
            words ? `${words}; ${ended}` : ended,
          );
        }),
      ]),
      signal,
    );
    clearInterval(timer);
    clearInterval(looks);
    over = true;
    life.abort(new CutShort("aborted"));
    this.#database = undefined;
    // Nothing is lost with one that has not begun: the database is here. A last synchronisation would replace the other's, and
    // at its end litestream may write what it has of an old file into the one that is there now.
    const atOnce = end?.reason === "replica-moved" || this.#isReplaced;
    await child.end(atOnce ? 0 : this.#started ? this.#endMs : UNBEGUN_END_MS);
    await replica.quiet();
    this.#setRunning(false);
    if (muted) {
      throw new LitestreamUnsupportedError(
        `${job.binary} does not say when it has uploaded: continuous replication takes litestream 0.3.12 or newer.`,
      );
    }
    return end ?? cutFailure(job, signal, 0);
  }

  /** What goes up from here is this machine's own. */
  #own(dialect: Dialect, position: Position): Position {
    const own = furthest(position, ownPosition(this.#job.dbpath));
    if (!this.#running || Object.keys(own).length > Object.keys(position).length)
      remember(this.#job, dialect, own, true);
    return own;
  }

  #setRunning(running: boolean): void {
    this.#running = running;
    this.#since = new Date();
  }

  #synced(covered: Fingerprint | undefined): void {
    this.#lastSync = new Date();
    this.#pendingSince = undefined;
    this.#patienceMs = PATIENCE_MS;
    this.#covered = covered;
  }

  /** Everything is up, and the replica's list has shown the first of it. */
  #held(): void {
    if (!this.#started) {
      this.#started = true;
      this.#failingSince = undefined;
      this.#setStarted();
    } else if (this.#failingSince !== undefined) {
      this.#failingSince = undefined;
      this.#job.logger.info({ dbpath: this.#job.dbpath }, "continuous replication has recovered");
      this.#tell(() => this.#options.onRecovered?.());
    }
  }

  #fail(end: End): void {
    this.#last = end;
    if (!this.#started || this.#failingSince !== undefined) return;
    this.#failingSince = new Date();
    this.#job.logger.warn({ dbpath: this.#job.dbpath, reason: end.reason }, end.message);
    this.#tell(() => this.#options.onFailing?.(end.message));
  }

  /** A litestream that is silent although there is something to upload. */
  #watch(cut: (end: End) => void): void {
    const look = fingerprint(this.#job.dbpath);
    if (look !== undefined && !sameFingerprint(look, this.#covered)) this.#pendingSince ??= performance.now();
    if (this.#pendingSince === undefined || !this.#started) return;
    // That nothing is left to upload, 0.5.17 says at every second interval.
    const silentMs = performance.now() - this.#pendingSince - 2 * this.#syncIntervalSeconds * 1000;
    if (silentMs < SILENCE_MS) return;
    const words = `nothing has gone up for ${Math.round(silentMs / 1000)} s, although there is something to replicate`;
    const end = failure(this.#job, "timeout", words);
    if (this.#failingSince === undefined) this.#fail(end);
    if (silentMs < this.#patienceMs) return;
    this.#patienceMs = Math.min(this.#patienceMs * 2, MAX_PATIENCE_MS);
    cut(end);
  }

  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#job.logger.error({ dbpath: this.#job.dbpath }, `a callback has thrown: ${messageOf(error)}`);
    }
  }
}
