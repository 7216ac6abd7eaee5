import {
  ageOf,
  type Fingerprint,
  fingerprint,
  hasLitestreamFolder,
  removeLitestreamFolder,
  sameFingerprint,
} from "../database-files.ts";
import { messageOf } from "../errors.ts";
import type { Job } from "./binary.ts";
import type { Child } from "./child.ts";
import { startLitestream } from "./configuration.ts";
import { complaintOf, type Dialect, type Reading } from "./dialect.ts";
import { pause, unlessCut, withLimit } from "./limit.ts";
import type { ReplicateFailure } from "./replicate.ts";
import { BETWEEN_GENERATIONS_MS } from "./writers.ts";

/** File times tick in steps of about 4 ms; after this long, a commit surely changes the `-wal`'s time. */
export const TICK_MS = 20;
export const LONGEST_PAUSE_MS = 1000;
/** With nothing left to upload, litestream 0.3 ends within milliseconds of SIGINT; after this long it hangs. */
const HANG_SECONDS = 2;
export const CHANGING = ["still-changing", "commits kept coming"] as const;

/** A synchronisation that is known to have succeeded, with a look at the files from a tick before it; else why not. */
type Synced =
  | { readonly before: Fingerprint | undefined }
  | { readonly reason: ReplicateFailure; readonly words: string; readonly said: boolean };

export async function synchronise(
  job: Job,
  dialect: Dialect,
  run: { anew: boolean; look: Fingerprint | undefined; reading: Reading | undefined; signal: AbortSignal },
): Promise<Synced> {
  const { anew, look, reading, signal } = run;
  const how = dialect.replicate;
  if (how === undefined) throw new TypeError("this litestream can't prove a replication");
  if (how.startsFresh) {
    const age = hasLitestreamFolder(job.dbpath) ? 0 : ageOf(job.dbpath);
    if (age < BETWEEN_GENERATIONS_MS) await pause(BETWEEN_GENERATIONS_MS - age, signal);
    if (signal.aborted) return { reason: "timeout", words: "", said: false };
    try {
      removeLitestreamFolder(job.dbpath);
    } catch (error) {
      return { reason: "failed", words: messageOf(error), said: true };
    }
  }
  const env = { ...job.env, ...dialect.env };
  const args = (anew ? how.anew : undefined) ?? how.args;
  const child = startLitestream(job, args, { env, signal, onLine: (line) => reading?.see(line) });
  const evidence = child.line(how.evidence);
  if (how.ends === "self") void child.line(how.failure).then((line) => line !== undefined && child.kill());
  const quiet = how.ends === "self" ? look : await interruptWhenQuiet(job, child, how, signal);
  const end = await child.ended;
  const began = (await evidence) !== undefined;
  if (how.ends === "interrupt" && quiet === undefined) {
    if (began && signal.aborted) return { reason: CHANGING[0], words: CHANGING[1], said: true };
  } else if (began && end.exitCode === 0) {
    return { before: quiet };
  }
  const { reason, words, said } = complaintOf(end.lines, [job.dbpath, job.s3]);
  return { reason: reason === "no-backup" ? "failed" : reason, words, said };
}

/**
 * Waits for the first synchronisation and then for a moment without commits, and sends SIGINT: what litestream
 * synchronises last is then later than the look. `undefined`: that moment did not come.
 */
async function interruptWhenQuiet(
  job: Job,
  child: Child,
  how: NonNullable<Dialect["replicate"]>,
  signal: AbortSignal,
): Promise<Fingerprint | undefined> {
  let over = false;
  const end = () => {
    over = true;
  };
  void child.ended.then(end);
  // After somebody else's signal the last synchronisation may be earlier than our look.
  void child.line(how.stopping).then(end);
  const failed = child.line(how.failure).then(() => undefined);

  const settled = await Promise.race([child.line(how.settled), failed]);
  for (let wait = TICK_MS; settled && !over; wait = Math.min(wait * 2, LONGEST_PAUSE_MS)) {
    const look = fingerprint(job.dbpath);
    // The pause also lets the event loop read what litestream has said before the look.
    await pause(wait, signal);
    if (signal.aborted) return undefined;
    if (over || !sameFingerprint(look, fingerprint(job.dbpath))) continue;
    child.stop("SIGINT");
    // Not AbortSignal.any and .timeout: on Node 20 the latter is garbage-collected, and then never fires.
    const seconds = how.uploaded.test(settled) ? HANG_SECONDS : undefined;
    await withLimit(seconds, signal, (limit) => unlessCut(child.ended, limit));
    child.kill();
    return look;
  }
  child.kill();
  return undefined;
}
