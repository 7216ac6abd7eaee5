/** Why a restore or a replication did not come to its end. */
export type FailureReason =
  /** The time was up before litestream had an answer. */
  | "timeout"
  /** The store refused the access key, the secret or what they are allowed to do. */
  | "credentials"
  /** The bucket does not exist, or not in this region. */
  | "bucket"
  /** The store could not be reached, or kept answering with server errors. */
  | "unreachable"
  /** The file is no SQLite database that litestream can open. */
  | "not-a-database"
  /** Another machine has written to the replica since this one last knew it. */
  | "replica-moved"
  /** The replica holds a backup that this machine has neither restored nor written: it is not replaced. */
  | "foreign-backup"
  /** Another process has the database open: it is not removed. */
  | "in-use"
  /** The caller's `AbortSignal` ended the call. */
  | "aborted"
  /** Anything else: the message has litestream's own words. */
  | "failed";

/** What to do about it, as the end of a message. */
export const ADVICE: Readonly<Record<FailureReason | "no-backup" | "still-changing", string>> = {
  timeout: "The store may be slow or silent: check the network, or allow more time.",
  credentials:
    "Check LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY, and what they are allowed to do in the bucket.",
  bucket:
    "Check that the bucket in REPLICA_URL exists, and that REPLICA_REGION, where it is set, is its region.",
  unreachable:
    "Check the network, the address in REPLICA_ENDPOINT or REPLICA_URL, and whether the store is up.",
  "not-a-database": "Check DB_FOLDER and DB_SQLITE: they must name an SQLite database.",
  "no-backup":
    "Check REPLICA_URL, or pass { ifReplicaExists: true } where a first boot without a backup is fine.",
  "still-changing": "Stop everything that writes to the database, and close it, before replicating.",
  "replica-moved":
    "To go on with the replica's, call delete() and restore(); to replace that with the database that is here, pass { takeOver: true }.",
  "foreign-backup":
    "If the backup is another app's, give this one a REPLICA_URL of its own. To go on with the backup, call delete() and restore(); to replace it with the database that is here, pass { takeOver: true }.",
  "in-use": "Close the database in that process, or end that process, before replicating.",
  aborted: "The caller's AbortSignal asked for it.",
  failed: "The lines that litestream printed are in the log at level debug.",
};

/**
 * The base of every error this library throws. `code` is stable; `message` says what failed and what
 * to do, and never holds the access key or the secret.
 */
export class LitestreamError extends Error {
  /** A stable word for programs; the message is for people. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** One unusable setting. */
export interface ConfigIssue {
  /** The setting's environment name, e.g. `REPLICA_URL`; for an unknown constructor key, that key. */
  readonly name: string;
  /** What is wrong with it, without its value. */
  readonly problem: string;
}

/** The settings can't be used. Code `CONFIG_INVALID`; `issues` lists every problem, not just the first. */
export class ConfigError extends LitestreamError {
  readonly issues: readonly ConfigIssue[];

  constructor(issues: readonly ConfigIssue[], options?: ErrorOptions) {
    const lines = issues.map(({ name, problem }) => `  ${name}: ${problem}`);
    super("CONFIG_INVALID", `These settings can't be used:\n${lines.join("\n")}`, options);
    this.issues = issues;
  }
}

/** An argument of a call can't be used, such as a timeout of NaN. Code `OPTION_INVALID`. */
export class InvalidOptionError extends LitestreamError {
  constructor(message: string) {
    super("OPTION_INVALID", message);
  }
}

/** There is no litestream to run. Code `LITESTREAM_NOT_FOUND`. */
export class LitestreamNotFoundError extends LitestreamError {
  constructor(message: string, options?: ErrorOptions) {
    super("LITESTREAM_NOT_FOUND", message, options);
  }
}

/** The program is not litestream, or one that can't do what was asked for: prove a replication, check a restored database. Code `LITESTREAM_UNSUPPORTED`. */
export class LitestreamUnsupportedError extends LitestreamError {
  constructor(message: string) {
    super("LITESTREAM_UNSUPPORTED", message);
  }
}

/** There is no database to replicate. Code `DATABASE_NOT_FOUND`. */
export class DatabaseNotFoundError extends LitestreamError {
  constructor(message: string) {
    super("DATABASE_NOT_FOUND", message);
  }
}

/** `restore()` never overwrites a database. Code `DATABASE_EXISTS`. */
export class DatabaseExistsError extends LitestreamError {
  constructor(
    path: string,
    advice = "Pass { ifDbNotExists: true } to keep it, or call delete() first to take the replica's.",
  ) {
    super("DATABASE_EXISTS", `${path} already exists and restore() never overwrites a database. ${advice}`);
  }
}

/** The restore did not succeed; nothing half-done is left. Code `RESTORE_FAILED`. */
export class RestoreError extends LitestreamError {
  /** Why; `no-backup` when the replica path holds none. */
  readonly reason: FailureReason | "no-backup";

  constructor(reason: FailureReason | "no-backup", message: string, options?: ErrorOptions) {
    super("RESTORE_FAILED", message, options);
    this.reason = reason;
  }
}

/** Continuous replication could not be started. Code `REPLICATION_FAILED`. */
export class ReplicationError extends LitestreamError {
  /** Why. */
  readonly reason: FailureReason | "still-changing";

  constructor(reason: FailureReason | "still-changing", message: string, options?: ErrorOptions) {
    super("REPLICATION_FAILED", message, options);
    this.reason = reason;
  }
}

/** A local file could not be read, written, removed or put in place. Code `FILE_SYSTEM`; `cause` is Node's error. */
export class FileSystemError extends LitestreamError {
  constructor(message: string, options?: ErrorOptions) {
    super("FILE_SYSTEM", message, options);
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
