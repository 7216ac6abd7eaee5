import { messageOf } from "./errors.ts";
import { isProven, isThere, replicaKeyOf, whyGone } from "./known-files.ts";
import { defaultLogger } from "./logger.ts";
import { type Database, shutdown, UNPROVEN } from "./shutdown-state.ts";

/**
 * Something ends the process while a registered database is not proven, such as another handler of a signal. The log says so
 * at once, and exit code 0 becomes 1.
 */
export function onExit(code: number): void {
  if (shutdown.ending) return;
  const databases = new Map<string, Database>();
  for (const { database } of shutdown.registered) databases.set(replicaKeyOf(database), database);
  for (const database of databases.values()) {
    const words = unprovenIn(database);
    if (words === undefined) continue;
    if (Number(code) === 0) process.exitCode = UNPROVEN;
    const { dbpath, s3, logger, isOwnLogger } = database;
    logger.error({ dbpath, s3 }, words);
    // Another logger may write later, and there is no later.
    if (!isOwnLogger) defaultLogger("error").error({ dbpath, s3 }, words);
  }
}

/** In words; `undefined` if everything is proven, or nothing was ever there. */
function unprovenIn(database: Database): string | undefined {
  const { dbpath, s3 } = database;
  const ended =
    "the process was ended by something else before the proof (process.exit() in another handler, an exception, or nothing left to do)";
  try {
    if (!isThere(dbpath)) {
      return whyGone(dbpath) === "vanished"
        ? `${ended}, and there is no database at ${dbpath} any more: something else than this process has removed or moved it. What of it is not in ${s3} is where it was moved to, if anywhere.`
        : undefined;
    }
    if (isProven(database)) return undefined;
    return `${ended}: what of ${dbpath} is not in ${s3} is on this disk alone. Keep it: the next boot here goes on with it. onShutdown() ends the process itself: take out what else calls process.exit() on a signal.`;
  } catch (error) {
    return `${ended}, and ${dbpath} can't be looked at: ${messageOf(error)}. What of it is not in ${s3} is on this disk alone.`;
  }
}
