import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { inspect } from "node:util";
import { fileOf, removeDatabase } from "./database-files.ts";
import { withDatabaseLock } from "./database-lock.ts";
import { readEnvFile } from "./env-file.ts";
import { ConfigError, FileSystemError, InvalidOptionError, LitestreamError, messageOf } from "./errors.ts";
import { noteBooted, noteBooting, noteRemoved } from "./known-files.ts";
import { findBinary, type Job } from "./litestream/binary.ts";
import { litestreamEnvironment, startChild } from "./litestream/child.ts";
import {
  afterReplication,
  type ContinuousOptions,
  endReplication,
  type Replication,
  replicateContinuously,
} from "./litestream/continuous.ts";
import { assertTimeout, withLimit } from "./litestream/limit.ts";
import { type ReplicateOptions, type ReplicateResult, replicate } from "./litestream/replicate.ts";
import { type RestoreOptions, requestOf, restore } from "./litestream/restore.ts";
import { defaultLogger, type Logger, type Redact, redactor, unfailing } from "./logger.ts";
import {
  assertPath,
  type Environment,
  readSettings,
  type Settings,
  type SettingsInput,
  stringsOf,
} from "./settings.ts";
import { onShutdown, type ShutdownOptions } from "./shutdown.ts";
import { endingOnSignal } from "./signal-in-restore.ts";

export interface ConfigOptions {
  /** The file with settings that the environment lacks. Default: `.env` in the working directory, if it is there. `false`: none. */
  envFile?: string | false;
  /** Where environment names are looked up. Default: `process.env`. */
  env?: Record<string, string | undefined>;
  /** A pino logger. Default: one on stderr, at `LOG_LEVEL` or `info`. */
  logger?: Logger;
  /** The litestream executable. Default: `LITESTREAM_BIN`, then `litestream` on PATH, then the npm package's. */
  litestream?: string;
}

/** So much of each stream's end comes back from `getResultOnTimeout`, in characters. */
const RESULT_LIMIT = 1024 * 1024;

/**
 * One SQLite database and its replica in S3. Immutable; neither `key`, `token` nor `folder` is shown when it is printed
 * or logged.
 */
export class ConfigS3 {
  /** The replica's URL, `s3://BUCKET/PATH`. */
  readonly s3: string;
  /** The file name of the database. */
  readonly db: string;
  readonly #settings: Settings;
  readonly #env: Environment;
  readonly #childEnv: Environment;
  readonly #wanted: string | undefined;
  readonly #redact: Redact;
  readonly #logger: Logger;
  readonly #isOwnLogger: boolean;

  /**
   * Settings come from the arguments, else the environment, else `.env`, else their defaults.
   * @throws ConfigError with every setting that can't be used
   */
  constructor(settings: Partial<SettingsInput> = {}, options: ConfigOptions = {}) {
    const env = stringsOf(options.env ?? process.env);
    const fromFile = readEnvFile(options.envFile);
    this.#settings = readSettings(settings, env, fromFile);
    this.s3 = this.#settings.s3;
    this.db = this.#settings.db;
    this.#env = env;
    this.#childEnv = litestreamEnvironment(env, this.key, this.token);
    this.#wanted = options.litestream || env.LITESTREAM_BIN || fromFile.values.LITESTREAM_BIN || undefined;
    if (this.#wanted !== undefined && typeof this.#wanted !== "string") {
      throw new ConfigError([{ name: "litestream", problem: "must be the path of an executable" }]);
    }
    this.#redact = redactor([this.key, this.token]);
    this.#isOwnLogger = (options.logger ?? undefined) === undefined;
    this.#logger = unfailing(options.logger ?? defaultLogger(env.LOG_LEVEL));
    Object.freeze(this);
  }

  /** The access key id. */
  get key(): string {
    return this.#settings.key;
  }

  /** The secret access key. */
  get token(): string {
    return this.#settings.token;
  }

  /** The store's address; `undefined` where the URL, or AWS, says it. */
  get endpoint(): string | undefined {
    return this.#settings.endpoint;
  }

  /** The bucket's region; `undefined` where the URL, the environment or litestream says it. */
  get region(): string | undefined {
    return this.#settings.region;
  }

  /** The absolute path of the database's folder. */
  get folder(): string {
    return this.#settings.folder;
  }

  /** How far back `restore({ timestamp })` can go at least, in hours. */
  get historyHours(): number {
    return this.#settings.historyHours;
  }

  /**
   * The absolute path of the database. Makes the folder where it is missing.
   * @throws ConfigError when the folder can't be made
   */
  get dbpath(): string {
    try {
      mkdirSync(this.folder, { recursive: true });
    } catch (error) {
      const problem = `the folder can't be made: ${messageOf(error)}`;
      throw new ConfigError([{ name: "DB_FOLDER", problem }], { cause: error });
    }
    return this.#path;
  }

  /** What one would type to replicate; what is really run depends on the installed litestream. */
  get replicateArgs(): string[] {
    return ["litestream", "replicate", this.dbpath, this.s3];
  }

  /** What one would type to restore with the litestream of the Python original's day (`-v` is gone since 0.3.12). */
  get restoreArgs(): string[] {
    return ["litestream", "restore", "-v", "-o", this.dbpath, this.s3];
  }

  /**
   * Puts the database from the replica into place, whole or not at all. A failure that may pass is tried again, until the
   * timeout or, without one, for 10 s.
   *
   * While a restore runs it listens for SIGTERM and SIGINT. If nobody else listens, such a signal ends the restore, and then the
   * process, with exit code 128 + n. After `onShutdown()` the shutdown does that. The promise does not settle in either case.
   * @returns `dbpath`, or `to` made absolute; with `ifReplicaExists` and no backup, there is no file
   * @throws DatabaseExistsError when there is a database, unless `ifDbNotExists`
   * @throws RestoreError with litestream's words when it did not succeed; nothing half-done is left
   * @throws LitestreamNotFoundError, LitestreamUnsupportedError, InvalidOptionError, ConfigError, FileSystemError
   */
  async restore(options: RestoreOptions = {}): Promise<string> {
    if (options.timeoutSeconds !== undefined) assertTimeout(options.timeoutSeconds);
    const request = requestOf(options);
    const dbpath = options.to === undefined ? this.dbpath : this.#elsewhere(options.to);
    const subject = { ...this.#subject, dbpath };
    const isOwn = options.to === undefined;
    if (isOwn) noteBooting(dbpath);
    await endingOnSignal(subject, options.signal, (signal) =>
      restore(subject, () => findBinary(this.#wanted, this.#env), { ...request, ...(signal && { signal }) }),
    );
    if (isOwn) noteBooted(subject);
    return dbpath;
  }

  /**
   * Removes the database and what belongs to it, whether or not it is in the replica. Missing files are fine. Waits for
   * the end of a replication of this database that is under way.
   * @throws FileSystemError when a file can't be removed
   */
  async delete(): Promise<void> {
    this.#logger.warn({ dbpath: this.#path }, "deleting the local database");
    // Not in the middle of a replication, which may be another process's.
    const { signal } = new AbortController();
    await endReplication(this.#path);
    await withDatabaseLock(this.#subject, signal, () => {
      removeDatabase(this.#path);
      noteRemoved(this.#path);
    });
  }

  /**
   * Brings everything committed into the replica and deletes the local files.
   * @param timeoutSeconds how long it may take at most; it returns as soon as the proof is there
   * @param options `takeOver`: goes on where the replica holds what this machine has neither restored nor written, which this
   * database then replaces. Default: false, which answers false
   * @returns true: everything committed is in the replica and the local files are gone. false: not proven within
   * the time, the reason is logged at error level and the local database is still there
   * @throws DatabaseNotFoundError, LitestreamNotFoundError, LitestreamUnsupportedError, InvalidOptionError, FileSystemError
   */
  async timedReplicate(
    timeoutSeconds: number,
    options: Pick<ReplicateOptions, "takeOver"> = {},
  ): Promise<boolean> {
    const { takeOver = false } = options;
    return await this.#prove({ timeoutSeconds, takeOver });
  }

  /**
   * What `timedReplicate` is made of: says why not, and can leave the local files in place.
   * @throws DatabaseNotFoundError, LitestreamNotFoundError, LitestreamUnsupportedError, InvalidOptionError, FileSystemError
   */
  async replicateOnce(options: ReplicateOptions): Promise<ReplicateResult> {
    assertTimeout(options?.timeoutSeconds);
    const binary = findBinary(this.#wanted, this.#env);
    this.#logger.info({ s3: this.s3, db: this.db }, "replicating");
    const job = { ...this.#subject, binary };
    return await afterReplication(job, options, (rest) => replicate(job, rest));
  }

  /**
   * Replicates for the life of the app, by a litestream beside it: what is committed goes up within `syncIntervalSeconds`.
   * Resolves once the first copy is in the replica. `timedReplicate`, `replicateOnce`, `onShutdown` and `delete` of this
   * process end it first.
   * @throws ReplicationError when that was not so within `startTimeoutSeconds`; code `ALREADY_REPLICATING`
   * @throws DatabaseNotFoundError, LitestreamNotFoundError, LitestreamUnsupportedError, InvalidOptionError, FileSystemError
   */
  async replicate(options: ContinuousOptions): Promise<Replication> {
    const binary = findBinary(this.#wanted, this.#env);
    return await replicateContinuously({ ...this.#subject, binary }, options);
  }

  /**
   * Has the process end well on SIGTERM and SIGINT: `close`, then the proof, as in `timedReplicate`, then exit. All that
   * is registered in this process is closed at once and replicated at once. A second signal says how long it may still
   * take; a third one, Ctrl-C, ends the process in the middle (exit code 130), and the local files stay.
   *
   * Call it before `restore()`, so that no signal comes too early: `let db;` and `close: () => db?.close()`. A signal then ends a
   * `restore()` that is under way, whose promise never settles, and the process.
   *
   * Exit code 0: every `close` has ended and everything committed is in the replicas. Or there was no local database, because the
   * signal came before the end of `restore()`, or because this process has removed the database itself.
   * 1: not so, the reason is logged at error level and what is not proven is still here. 0, not 128 + n, which systemd and
   * Docker's `on-failure` count as failures. A `process.exitCode` of the app's own comes before 0.
   *
   * The process ends with `process.exit()`: what else is to be closed belongs into `close`. Handlers of others stay. One that
   * ends the process by itself cuts this short, as does an exception, or an app that has nothing left to do. If a database is not
   * proven then, an `exit` listener logs that at error level, on stderr too, and turns exit code 0 into 1.
   * @returns what takes it back; with the last one gone, the signals do what they did before
   * @throws InvalidOptionError
   */
  onShutdown(options: ShutdownOptions): () => void {
    const prove = (how: ReplicateOptions) => this.#prove(how);
    return onShutdown({ ...this.#subject, isOwnLogger: this.#isOwnLogger, prove }, options);
  }

  /**
   * Runs a command to its end or its timeout, and kills it then. The name `litestream` stands for the executable that
   * this configuration uses, and gets its credentials.
   * @returns what it wrote to stdout and stderr, the last 1,048,576 characters of each
   * @throws InvalidOptionError for an empty command or an unusable timeout
   * @throws LitestreamError with code `COMMAND_NOT_STARTED`
   */
  async getResultOnTimeout(
    cmd: readonly string[],
    timeoutSeconds: number,
  ): Promise<[stdout: string, stderr: string]> {
    assertTimeout(timeoutSeconds);
    const usable =
      Array.isArray(cmd) && cmd.every((word) => typeof word === "string" && !word.includes("\0"));
    const [name, ...args] = usable ? cmd : [];
    if (!name) throw new InvalidOptionError('The command must be a list of words, such as ["ls", "-l"].');
    const isLitestream = name === "litestream";
    const file = isLitestream ? findBinary(this.#wanted, this.#env) : name;
    const env = isLitestream ? this.#childEnv : this.#env;
    const end = await withLimit(
      timeoutSeconds,
      undefined,
      (signal) => startChild(file, args, { ...this.#subject, env, signal, capture: RESULT_LIMIT }).ended,
    );
    if (end.startError !== undefined) {
      throw new LitestreamError("COMMAND_NOT_STARTED", `${name} could not be started: ${end.startError}`);
    }
    return [end.stdout, end.stderr];
  }

  /** `ConfigS3(s3='s3://x/x.db', db='db.sqlite')` */
  toString(): string {
    return `ConfigS3(s3='${this.s3}', db='${this.db}')`;
  }

  toJSON(): { s3: string; db: string } {
    return { s3: this.s3, db: this.db };
  }

  [inspect.custom](): string {
    return this.toString();
  }

  /** `replicateOnce`, with its result in the log. */
  async #prove(options: ReplicateOptions): Promise<boolean> {
    const result = await this.replicateOnce(options);
    const { ok, durationMs, litestream } = result;
    if (ok) {
      this.#logger.info(
        { s3: this.s3, db: this.db, durationMs, litestream },
        `replicated; the local database ${options.keepLocal ? "stays" : "is deleted"}`,
      );
    } else {
      const { reason, message } = result;
      this.#logger.error({ s3: this.s3, db: this.db, reason, durationMs, litestream }, message);
    }
    return ok;
  }

  /** Another path for the database, whose folder is made. */
  #elsewhere(to: string): string {
    const path = assertPath(to, this.token);
    try {
      mkdirSync(dirname(path), { recursive: true });
    } catch (error) {
      throw new FileSystemError(`The folder of ${path} can't be made: ${messageOf(error)}.`, {
        cause: error,
      });
    }
    if (fileOf(path) === fileOf(this.#path))
      throw new InvalidOptionError("`to` is the path of the database itself: leave it out.");
    return path;
  }

  /** `dbpath`, without making the folder. */
  get #path(): string {
    return join(this.folder, this.db);
  }

  get #subject(): Omit<Job, "binary"> {
    const { s3, endpoint, region, historyHours } = this;
    const replica = { dbpath: this.#path, s3, endpoint, region, historyHours };
    return {
      ...replica,
      hints: this.#settings.hints,
      env: this.#childEnv,
      redact: this.#redact,
      logger: this.#logger,
    };
  }
}
