import { inspect } from "node:util";
import { fileOf, isGone } from "./database-files.ts";
import { isThere, replicaKeyOf, unlessThrown } from "./known-files.ts";
import { proveFile } from "./shutdown-proof.ts";
import {
  endProcess,
  type Registration,
  shutdown,
  type Task,
  UNPROVEN,
  type UnderWay,
} from "./shutdown-state.ts";
import { endRestores } from "./signal-in-restore.ts";

/**
 * Signals that are so near to each other are one. A terminal's Ctrl-C reaches npm's whole process group, and npm passes it on
 * besides: the app has it twice within a millisecond (npm 11 with bash; with dash, the shell keeps the second one). And
 * whoever hammers on Ctrl-C has not read yet what the second one says.
 */
const MOMENT_MS = 500;
/** 128 + SIGINT, as a shell has it for a program that Ctrl-C has ended. */
const INTERRUPTED = 130;

export function onSignal(signal: NodeJS.Signals): void {
  const now = performance.now();
  if (shutdown.underWay !== undefined) {
    onFurtherSignal(signal, shutdown.underWay, now);
    return;
  }
  const registrations = [...shutdown.registered];
  const files = tasksOf(registrations);
  shutdown.underWay = { start: now, open: new Set(files.flat()), counted: now, warned: false };
  for (const { database, timeoutSeconds } of shutdown.underWay.open) {
    const { dbpath, logger } = database;
    unlessThrown(() => isThere(dbpath));
    logger.info({ dbpath, timeoutSeconds }, `${signal}: closing and replicating`);
  }
  void shutDown(registrations, files, now);
}

/** The first one says how long it takes at most. A further Ctrl-C is somebody who knows that, and ends it. */
function onFurtherSignal(signal: NodeJS.Signals, underWay: UnderWay, now: number): void {
  if (now - underWay.counted < MOMENT_MS) return;
  underWay.counted = now;
  // Only Ctrl-C: SIGTERM is a program's, and some send several (Heroku). One that means it sends SIGKILL.
  const end = underWay.warned && signal === "SIGINT";
  underWay.warned = true;
  for (const { database, timeoutSeconds, doing } of underWay.open) {
    const { dbpath, s3, logger } = database;
    if (unlessThrown(() => isGone(dbpath))) continue;
    if (end) {
      logger.error(
        { dbpath },
        `${signal}: ended before the proof. What of ${dbpath} is not in ${s3} is on this disk alone: keep it, the next boot here goes on with it. A litestream that is still running ends too.`,
      );
    } else {
      const left = Math.max(0, Math.ceil(timeoutSeconds - (now - underWay.start) / 1000));
      logger.warn(
        { dbpath },
        `${signal} again: still ${doing}, for ${left} s more at most. Ctrl-C once more ends it at once; what of ${dbpath} is not in ${s3} by then, is on this disk alone.`,
      );
    }
  }
  if (end) endProcess(INTERRUPTED);
}

/**
 * One for each replica of each file, by file, however often it is registered: the shortest time counts, and the files stay if
 * one wants that.
 */
function tasksOf(registrations: readonly Registration[]): Task[][] {
  const files = new Map<string, Registration[]>();
  for (const registration of registrations) {
    const file = fileOf(registration.database.dbpath);
    files.set(file, [...(files.get(file) ?? []), registration]);
  }
  return [...files.values()].map((same) => {
    const timeoutSeconds = Math.min(...same.map((registration) => registration.timeoutSeconds));
    const keepLocal = same.some((registration) => registration.keepLocal);
    const places = new Map(same.map(({ database }) => [replicaKeyOf(database), database]));
    return [...places.values()].map((database) => ({
      database,
      timeoutSeconds,
      keepLocal,
      doing: "closing",
    }));
  });
}

async function shutDown(registrations: Registration[], files: Task[][], start: number): Promise<void> {
  try {
    // What a restore has put into place by then is replicated like any other; the app must not open it any more.
    const restores = endRestores();
    // One may close what another one's database is written by: each waits for all.
    const closed = Promise.all(registrations.map(close)).then((all) => all.every(Boolean));
    const proven = await Promise.all(files.map((tasks) => proveFile(tasks, closed, restores, start)));
    if (!proven.every(Boolean)) process.exitCode = UNPROVEN;
  } catch {
    process.exitCode = UNPROVEN;
  }
  endProcess();
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
