import {
  type Fingerprint,
  fileKind,
  fingerprint,
  isGone,
  removeDatabase,
  sameFingerprint,
} from "../database-files.ts";
import { ADVICE, messageOf } from "../errors.ts";
import { type Holder, OpenDatabase, wordsFor } from "../holders.ts";
import type { Job } from "./binary.ts";
import { pause, type Turn } from "./limit.ts";
import { TICK_MS } from "./synchronise.ts";

/** How often at most the processes are looked at that have the database open. */
const POLL_MS = 100;

export type Removal = { ok: true } | { ok: false; reason: "failed" | "in-use" | "timeout"; message: string };

/**
 * Removes a database that is proven, once no other process has it open: one that has may still commit.
 * @param proven the look that proved every commit to be in the replica
 * @param turn is given away for the wait, which runs no litestream
 * @param onRemoved called before anything else can run
 * @returns `in-use` if one still has it when the signal fires; `changed` if something was committed meanwhile
 */
export async function removeUnused(
  job: Job,
  proven: Fingerprint | undefined,
  signal: AbortSignal,
  turn: Turn,
  onRemoved: () => void,
): Promise<Removal | "changed"> {
  const database = new OpenDatabase(job.dbpath);
  const unchanged = () => sameFingerprint(proven, fingerprint(job.dbpath));
  let holders: Holder[] = [];
  let isTold = false;
  while (unchanged()) {
    if (signal.aborted) return stays(job, holders);
    holders = await database.others(signal);
    if (holders.length === 0 && !signal.aborted) {
      // From here to the removal nothing is awaited: no commit of this process can come between.
      const removal = remove(job, proven, () => {
        holders = database.nearestOthers();
        return holders.length > 0;
      });
      if (removal?.ok) onRemoved();
      if (removal !== undefined) return removal;
    }
    if (holders.length > 0 && !isTold) {
      isTold = true;
      turn.give();
      const words = `everything is replicated; waiting for who else has the database open: ${wordsFor(holders)}`;
      job.logger.info({ dbpath: job.dbpath }, job.redact(words));
    }
    for (let wait = TICK_MS; !signal.aborted && unchanged(); wait = Math.min(wait * 2, POLL_MS)) {
      await pause(wait, signal);
      if (!database.isOpenIn(holders)) break;
    }
  }
  if (!signal.aborted) await turn.take();
  return "changed";
}

function stays({ dbpath, s3, redact }: Job, holders: readonly Holder[]): Removal {
  const proven = `Everything that was committed to ${dbpath} until now is in ${s3}, but the database stays:`;
  if (holders.length === 0) {
    const why = "the time was up before it was known whether another process has it open.";
    return { ok: false, reason: "timeout", message: `${proven} ${why} ${ADVICE.timeout}` };
  }
  const why = `another process has it open: ${redact(wordsFor(holders))}.`;
  return { ok: false, reason: "in-use", message: `${proven} ${why} ${ADVICE["in-use"]}` };
}

/** `undefined`: it is in use, or something was committed at the last moment, and the database is where it was. */
function remove(job: Job, proven: Fingerprint | undefined, isInUse: () => boolean): Removal | undefined {
  try {
    return proven && removeDatabase(job.dbpath, proven, isInUse) ? { ok: true } : undefined;
  } catch (error) {
    if (isGone(job.dbpath)) {
      // The next restore removes what is left.
      job.logger.warn({ dbpath: job.dbpath }, messageOf(error));
      return { ok: true };
    }
    const where =
      fileKind(job.dbpath) === "file"
        ? `Everything in ${job.dbpath} is in the replica ${job.s3}, but it could not be deleted here.`
        : `${job.dbpath} could be neither deleted nor put back into its place; the next call does that.`;
    const message = `${where} ${messageOf(error)}`;
    return { ok: false, reason: "failed", message };
  }
}
