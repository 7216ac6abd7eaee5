import { inspect } from "node:util";
import { isMainThread } from "node:worker_threads";
import { isGone } from "./database-files.ts";
import { InvalidOptionError, messageOf } from "./errors.ts";
import type { Job } from "./litestream/binary.ts";
import { assertTimeout, unlessCut, withLimit } from "./litestream/limit.ts";
import type { ReplicateOptions } from "./litestream/replicate.ts";

export interface ShutdownOptions {
  /**
   * How long all of it may take from the signal on, `close` and the proof, in seconds: positive and finite. Less than the
   * platform leaves between its signal and SIGKILL. At least half of it is the proof's.
   */
  timeoutSeconds: number;
  /**
   * Stops everything that writes, then closes the database: `async () => { await app.close(); db.close(); }`. Where it
   * throws, or takes longer than half of the time, the proof goes on without it, and the local files stay: something may
   * still write to them.
   */
  close?: () => unknown;
  /** Leaves the local files in place. Default: false. */
  keepLocal?: boolean;
}

/** A database, and how it is brought into its replica. */
interface Database extends Pick<Job, "dbpath" | "s3" | "logger" | "redact"> {
  /** Says in the log what came of it; false: not proven. */
  prove(options: ReplicateOptions): Promise<boolean>;
}

interface Registration {
  readonly database: Database;
  readonly timeoutSeconds: number;
  readonly keepLocal: boolean;
  readonly close: () => unknown;
}

/** What is to be done for one database. */
interface Task extends Pick<Registration, "database" | "timeoutSeconds" | "keepLocal"> {
  doing: string;
}

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/**
 * Signals that are so near to each other are one. A terminal's Ctrl-C reaches npm's whole process group, and npm passes it on
 * besides: the app has it twice within a millisecond (npm 11 with bash; with dash, the shell keeps the second one). And
 * whoever hammers on Ctrl-C has not read yet what the second one says.
 */
const MOMENT_MS = 500;
/** Not everything is proven. */
const UNPROVEN = 1;
/** 128 + SIGINT, as a shell has it for a program that Ctrl-C has ended. */
const INTERRUPTED = 130;

const registered = new Set<Registration>();

/** The shutdown of this process, once a signal has begun it. */
let underWay:
  | { readonly start: number; readonly open: Set<Task>; counted: number; warned: boolean }
  | undefined;

/**
 * Has the database closed and replicated when the process gets SIGTERM or SIGINT.
 * @returns what takes that back
 * @throws InvalidOptionError
 */
export function onShutdown(database: Database, options: ShutdownOptions): () => void {
  assertTimeout(options?.timeoutSeconds);
  const { timeoutSeconds, keepLocal = false, close = () => {} } = options;
  if (typeof close !== "function") {
    throw new InvalidOptionError(`close must be a function; it is of the type ${typeof close}.`);
  }
  if (!isMainThread) {
    throw new InvalidOptionError("onShutdown() must be called in the main thread: workers get no signals.");
  }
  const registration = { database, timeoutSeconds, keepLocal, close };
  if (underWay !== undefined) {
    const { dbpath, logger } = database;
    logger.error(
      { dbpath },
      "onShutdown() comes after the signal: this database is not replicated, and stays",
    );
    process.exitCode = UNPROVEN;
  }
  registered.add(registration);
  for (const name of SIGNALS) if (!process.listeners(name).includes(onSignal)) process.on(name, onSignal);
  return () => {
    registered.delete(registration);
    // Not in the middle of it: the next signal would end the process.
    if (registered.size === 0 && underWay === undefined)
      for (const name of SIGNALS) process.off(name, onSignal);
  };
}

function onSignal(signal: NodeJS.Signals): void {
  const now = performance.now();
  if (underWay !== undefined) {
    onFurtherSignal(signal, underWay, now);
    return;
  }
  const tasks = tasksOf(registered);
  underWay = { start: now, open: new Set(tasks), counted: now, warned: false };
  for (const { database, timeoutSeconds } of tasks) {
    const { dbpath, logger } = database;
    logger.info({ dbpath, timeoutSeconds }, `${signal}: closing and replicating`);
  }
  void shutDown([...registered], tasks, now);
}

/** The first one says how long it takes at most. A further Ctrl-C is somebody who knows that, and ends it. */
function onFurtherSignal(signal: NodeJS.Signals, shutdown: NonNullable<typeof underWay>, now: number): void {
  if (now - shutdown.counted < MOMENT_MS) return;
  shutdown.counted = now;
  // Only Ctrl-C: SIGTERM is a program's, and some send several (Heroku). One that means it sends SIGKILL.
  const end = shutdown.warned && signal === "SIGINT";
  shutdown.warned = true;
  for (const { database, timeoutSeconds, doing } of shutdown.open) {
    const { dbpath, s3, logger } = database;
    if (isGone(dbpath)) continue;
    if (end) {
      logger.error(
        { dbpath },
        `${signal}: ended before the proof. What of ${dbpath} is not in ${s3} is on this disk alone: keep it, the next boot here goes on with it. A litestream that is still running ends too.`,
      );
    } else {
      const left = Math.max(0, Math.ceil(timeoutSeconds - (now - shutdown.start) / 1000));
      logger.warn(
        { dbpath },
        `${signal} again: still ${doing}, for ${left} s more at most. Ctrl-C once more ends it at once; what of ${dbpath} is not in ${s3} by then, is on this disk alone.`,
      );
    }
  }
  if (end) process.exit(INTERRUPTED);
}

/** One for each database, however often it is registered: the shortest time counts, and the files stay if one wants that. */
function tasksOf(registrations: Iterable<Registration>): Task[] {
  const tasks = new Map<string, Task>();
  for (const { database, timeoutSeconds, keepLocal } of registrations) {
    const key = `${database.s3} ${database.dbpath}`;
    const other = tasks.get(key);
    tasks.set(key, {
      database,
      timeoutSeconds: Math.min(timeoutSeconds, other?.timeoutSeconds ?? timeoutSeconds),
      keepLocal: keepLocal || other?.keepLocal === true,
      doing: "closing",
    });
  }
  return [...tasks.values()];
}

async function shutDown(registrations: Registration[], tasks: Task[], start: number): Promise<void> {
  // One may close what another one's database is written by: each waits for all.
  const closed = Promise.all(registrations.map(close)).then((all) => all.every(Boolean));
  const proven = await Promise.all(tasks.map((task) => prove(task, closed, start)));
  if (!proven.every(Boolean)) process.exitCode = UNPROVEN;
  // Whatever else keeps the process alive, such as a server that was not closed.
  process.exit();
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

async function prove(task: Task, closed: Promise<boolean>, start: number): Promise<boolean> {
  const { database, timeoutSeconds, keepLocal } = task;
  const { dbpath, logger } = database;
  try {
    const half = timeoutSeconds / 2;
    const clean = await withLimit(half, undefined, (limit) => unlessCut(closed, limit));
    if (clean === undefined) {
      logger.error(
        { dbpath },
        `close() has not ended within ${half} s, so that something may still write: what is there is replicated, and the local files stay`,
      );
    }
    if (isGone(dbpath)) {
      // As before the end of a restore, or after a timedReplicate of the app's own.
      logger.warn({ dbpath }, "there is no local database, and so nothing to replicate");
      return clean === true;
    }
    task.doing = "replicating";
    // Where close() has held up the event loop, even past the deadline, the proof is worth a try.
    const left = Math.max(half, timeoutSeconds - (performance.now() - start) / 1000);
    const proven = await database.prove({ timeoutSeconds: left, keepLocal: keepLocal || !clean });
    return proven && clean === true;
  } catch (error) {
    logger.error({ dbpath }, messageOf(error));
    return false;
  } finally {
    underWay?.open.delete(task);
  }
}
