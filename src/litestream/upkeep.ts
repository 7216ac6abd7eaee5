import { messageOf } from "../errors.ts";
import type { Job } from "./binary.ts";
import { startLitestream } from "./configuration.ts";
import { copySize, type Dialect, type ReplicaObject, upkeepOf, type Written } from "./dialect.ts";
import { CutShort, withLimit } from "./limit.ts";
import { synchronise } from "./synchronise.ts";

// On litestream 0.5 each life of an app adds a whole copy to the replica, and the next boot downloads all of them since the
// last snapshot. So, once everything is proven, and with the time that is left: now and then a snapshot, and less often the
// removal of what is older than the history that the user wants.

/** Left for the removal of the local files. */
const RESERVE_MS = 500;
/** What a removal takes besides what it uploads: litestream waits for a second before it begins (measured: 1.3 s in all). */
const REMOVAL_MS = 3000;
const SNAPSHOT_MS = 1000;
/** How much longer it may take than the copy that has just gone up, before it is given up. */
const PATIENCE_MS = 5000;

interface Proven {
  /** All that the replica holds. */
  readonly objects: readonly ReplicaObject[];
  readonly written: Omit<Written, "position">;
  /** How long the upload of a whole copy has taken. */
  readonly copyMs: number;
  /** The call's deadline, by `performance.now()`. */
  readonly endsAt: number;
  readonly signal: AbortSignal;
}

/** Whatever comes of it: what is proven stays so. Never rejects, and ends well before the deadline. */
export async function tend(job: Job, dialect: Dialect, proven: Proven): Promise<void> {
  let words: string | undefined;
  try {
    words = await tendTo(job, dialect, proven);
  } catch (error) {
    words = error instanceof CutShort ? "there was no time" : messageOf(error);
  }
  if (words !== undefined) job.logger.info({ s3: job.s3 }, `not now, but at a later shutdown: ${words}`);
}

/** @returns why not */
async function tendTo(job: Job, dialect: Dialect, proven: Proven): Promise<string | undefined> {
  const { objects, written, copyMs, endsAt, signal } = proven;
  const copy = copySize(objects, written);
  if (dialect.upkeep === undefined || copy === undefined) return undefined;
  const { snapshot, before } = upkeepOf(objects, copy, job.historyHours * 3_600_000);
  const leftMs = endsAt - performance.now() - RESERVE_MS;
  const limitMs = Math.min(leftMs, 4 * copyMs + PATIENCE_MS);
  // Counted from the end of the run, so that not even then it reaches what it must leave.
  const retentionMs = before === undefined ? undefined : Date.now() - before + limitMs;
  const removes = retentionMs !== undefined && retentionMs > limitMs && leftMs > 4 * copyMs + REMOVAL_MS;
  const takesSnapshot = snapshot && leftMs > 2 * copyMs + SNAPSHOT_MS;
  if (!removes && !takesSnapshot) return undefined;
  const what = removes ? "older objects are removed from the replica" : "a snapshot goes up";
  job.logger.info({ s3: job.s3, objects: objects.length }, `${what}, for the boots to come`);
  return await withLimit(limitMs / 1000, signal, (limit) =>
    removes ? removeOlder(job, dialect, { retentionMs, snapshot }, limit) : takeSnapshot(job, dialect, limit),
  );
}

/** @returns why not */
async function takeSnapshot(job: Job, dialect: Dialect, signal: AbortSignal): Promise<string | undefined> {
  const run = { anew: true, look: undefined, reading: undefined, signal };
  const synced = await synchronise(job, dialect, run);
  return "reason" in synced ? job.redact(synced.words) || "it took too long" : undefined;
}

/** @returns why not */
async function removeOlder(
  job: Job,
  { upkeep, env: own }: Dialect,
  how: { retentionMs: number; snapshot: boolean },
  signal: AbortSignal,
): Promise<string | undefined> {
  if (upkeep === undefined) return undefined;
  const env = { ...job.env, ...own };
  const child = startLitestream(job, upkeep.args, { env, signal }, { upkeep: how });
  const said = [upkeep.compacted, ...(how.snapshot ? [upkeep.snapshotted] : [])].map((line) =>
    child.line(line),
  );
  const done = (await Promise.all(said)).every((line) => line !== undefined);
  child.stop("SIGINT");
  await child.ended;
  return done ? undefined : "litestream ended, or took too long";
}
