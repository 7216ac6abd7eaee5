import { identifyBinary, type Job } from "./binary.ts";
import type { Seen } from "./dialect.ts";
import { CutShort, pause, unlessCut, withLimit, withTurn } from "./limit.ts";
import { lookAtReplica } from "./writers.ts";

/** The longest that a boot waits for a look at the replica, without which it goes on. */
const GLANCE_SECONDS = 5;
const PAUSE_MS = 250;

export type Look = ReturnType<typeof beginLook>;

/** Looks how far the replica has come, beside the restore: what takes a long time, or fails once, must not go unknown. */
export function beginLook(job: Job, caller: AbortSignal) {
  const ending = new AbortController();
  const end = () => ending.abort(caller.aborted ? caller.reason : new CutShort("aborted"));
  if (caller.aborted) end();
  caller.addEventListener("abort", end, { once: true });
  const { signal } = ending;
  // What goes wrong here goes wrong with the restore as well, or else says nothing of the replica.
  let cut: CutShort | undefined;
  let known: Awaited<ReturnType<typeof glance>>;
  const tries: Promise<typeof known>[] = [];
  const look = (seconds: number) => {
    const next = withTurn(signal, () => glance(job, signal, seconds)).catch((error: unknown) => {
      if (error instanceof CutShort) cut = error;
      return undefined;
    });
    tries.push(next);
    return next;
  };
  const first = look(Number.POSITIVE_INFINITY);
  void first.then((seen) => {
    known ??= seen;
  });
  let isEarly = false;
  const within = (work: (limit: AbortSignal) => Promise<typeof known>) =>
    withLimit(GLANCE_SECONDS, caller, (limit) => unlessCut(work(limit), limit));
  // The first one may hang for ever.
  const again = async (limit: AbortSignal): Promise<typeof known> => {
    while (!limit.aborted) {
      const next = look(GLANCE_SECONDS);
      const seen = known ?? (await next);
      if (seen !== undefined) return seen;
      await pause(PAUSE_MS, limit);
    }
    return undefined;
  };
  // Not more often: a wrong secret, say, is to be told at once.
  const atMostTwice = async (limit: AbortSignal): Promise<typeof known> => {
    const seen = await first;
    if (seen !== undefined) return seen;
    await pause(PAUSE_MS, limit);
    return limit.aborted ? undefined : await look(GLANCE_SECONDS);
  };
  return {
    /**
     * Before the restore.
     * @throws CutShort where the caller's signal has come: it says what was waited for
     */
    begun: async () => {
      known ??= await within(atMostTwice);
      isEarly = known !== undefined;
      if (caller.aborted) await first;
      if (caller.aborted && cut !== undefined) throw cut;
    },
    /**
     * After it; `undefined` where it can't be told. `isLate`: taken after `begun`, so that what another machine has written
     * meanwhile is in it, and need not be in what was restored.
     */
    seen: async (): Promise<{ seen: Seen; isLate: boolean } | undefined> => {
      const late = first.then((seen) => seen ?? new Promise<undefined>(() => {}));
      const found = known ?? (await within((limit) => Promise.race([late, again(limit)])));
      return found && { seen: found.seen, isLate: !isEarly };
    },
    end: async () => {
      caller.removeEventListener("abort", end);
      end();
      await Promise.all(tries);
    },
  };
}

/** How far the replica has come; `undefined` where that can't be told just then. */
export async function glance(job: Job, caller: AbortSignal, seconds = GLANCE_SECONDS) {
  return await withLimit(seconds, caller, async (signal) => {
    const { dialect } = await identifyBinary(job.binary, { ...job, signal });
    const seen = await lookAtReplica(job, dialect, signal);
    return seen === undefined || "reason" in seen ? undefined : { seen, dialect };
  }).catch((error: unknown) => {
    if (error instanceof CutShort && !caller.aborted) return undefined;
    throw error;
  });
}
