import { isMainThread } from "node:worker_threads";
import { InvalidOptionError } from "./errors.ts";
import { onExit } from "./exit-listener.ts";
import { isThere, unlessThrown } from "./known-files.ts";
import { assertTimeout } from "./litestream/limit.ts";
import { onSignal } from "./shutdown-run.ts";
import { type Database, shutdown, UNPROVEN } from "./shutdown-state.ts";

export interface ShutdownOptions {
  /**
   * How long all of it may take from the signal on, `close` and the proof, in seconds: positive and finite. Less than the
   * platform leaves between its signal and SIGKILL. At least half of it is the proof's.
   */
  timeoutSeconds: number;
  /**
   * Stops everything that writes, then closes the database: `async () => { await app.close(); db?.close(); }`. Where it
   * throws, or takes longer than half of the time, the proof goes on without it, and the local files stay: something may
   * still write to them. `close` must not wait for a `restore()`: the signal ends that, and the promise never settles.
   */
  close?: () => unknown;
  /** Leaves the local files in place. Default: false. */
  keepLocal?: boolean;
}

const SIGNALS = ["SIGTERM", "SIGINT"] as const;

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
  if (shutdown.underWay !== undefined) {
    const { dbpath, logger } = database;
    logger.error(
      { dbpath },
      "onShutdown() comes after the signal: this database is not replicated, and stays",
    );
    process.exitCode = UNPROVEN;
  }
  unlessThrown(() => isThere(database.dbpath));
  shutdown.registered.add(registration);
  listen();
  return () => {
    shutdown.registered.delete(registration);
    // Not in the middle of it: the next signal would end the process.
    if (shutdown.registered.size === 0 && shutdown.underWay === undefined) unlisten();
  };
}

/** Once for all copies of the package, and again if somebody has removed all of the process's listeners. */
function listen(): void {
  shutdown.onSignal ??= onSignal;
  shutdown.onExit ??= onExit;
  for (const name of SIGNALS) {
    if (!process.listeners(name).includes(shutdown.onSignal)) process.on(name, shutdown.onSignal);
  }
  // First: a listener before it could end the process in silence.
  if (!process.listeners("exit").includes(shutdown.onExit)) process.prependListener("exit", shutdown.onExit);
}

function unlisten(): void {
  if (shutdown.onSignal !== undefined) for (const name of SIGNALS) process.off(name, shutdown.onSignal);
  if (shutdown.onExit !== undefined) process.off("exit", shutdown.onExit);
}
