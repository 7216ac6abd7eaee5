import { setMaxListeners } from "node:events";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { InvalidOptionError } from "../errors.ts";
import { processState } from "../process-state.ts";

/** setTimeout fires at once beyond this; it is 24.8 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * So many calls run litestream at a time in this process; the others wait for their turn. Enough for 50 databases to go up
 * in 5 s on litestream 0.3, which idles for a second in each run. Few enough for a small machine: each takes 10 MB of memory
 * with a small database, 80 MB with one of 100 MB, and 3 of this process's file descriptors.
 */
export const PLACES = 16;

/** Why a call was cut short; the `reason` of the signal that `withLimit` hands out. */
export class CutShort extends Error {
  readonly reason: "timeout" | "aborted";
  /** What it was still waiting for, in words; `undefined` where it had begun. */
  readonly waiting: string | undefined;

  constructor(reason: "timeout" | "aborted", cause?: unknown, waiting?: string) {
    super(reason, { cause });
    this.reason = reason;
    this.waiting = waiting;
  }
}

/** Runs the work with a signal that fires when the time is up or the caller aborts; the signal's reason is a `CutShort`. */
export async function withLimit<T>(
  timeoutSeconds: number | undefined,
  caller: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
  // One signal for more than ten databases is no leak. AbortSignal.any would do without this, but lets go of a signal of
  // AbortSignal.timeout on Node 20: collected as garbage, it never fires.
  if (caller !== undefined) setMaxListeners(0, caller);
  const onAbort = () => limit.abort(new CutShort("aborted", caller?.reason));
  if (caller?.aborted) onAbort();
  caller?.addEventListener("abort", onAbort, { once: true });
  const timer =
    timeoutSeconds === undefined
      ? undefined
      : setTimeout(() => limit.abort(new CutShort("timeout")), Math.min(timeoutSeconds * 1000, MAX_TIMER_MS));
  try {
    return await work(limit.signal);
  } finally {
    clearTimeout(timer);
    caller?.removeEventListener("abort", onAbort);
  }
}

const places = processState("places", () => ({
  taken: 0,
  /** In the order of their coming; each is called when its turn has come. */
  queue: [] as (() => void)[],
}));

/**
 * Runs the work when its turn has come: first come, first served. Not to be nested: the inner call might wait for the
 * outer one's place.
 * @throws CutShort where the signal comes first; the work is not begun then
 */
export async function withTurn<T>(signal: AbortSignal, work: (turn: Turn) => Promise<T>): Promise<T> {
  let isTaken = false;
  const give = () => {
    if (!isTaken) return;
    isTaken = false;
    // The place goes straight to the next one, so that no newcomer comes between.
    const next = places.queue.shift();
    if (next) next();
    else places.taken -= 1;
  };
  const take = async () => {
    if (isTaken) return;
    if (signal.aborted) throw signal.reason;
    if (places.taken < PLACES) places.taken += 1;
    else await turn(signal);
    isTaken = true;
  };
  await take();
  try {
    // The signal may have come after the turn, before this line.
    if (signal.aborted) throw signal.reason;
    return await work({ give, take });
  } finally {
    give();
  }
}

/** For work that waits for others, and runs no litestream meanwhile. */
export interface Turn {
  /** Lets the next one have the place. */
  give(): void;
  /** Waits for a place, if there is none; throws `CutShort` if the signal comes first. */
  take(): Promise<void>;
}

function turn(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onTurn = () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const onAbort = () => {
      const before = places.queue.indexOf(onTurn);
      places.queue.splice(before, 1);
      const { reason, cause } = signal.reason as CutShort;
      const words = `it waited for its turn behind ${PLACES + before} other calls (${PLACES} at a time run litestream in one process)`;
      reject(new CutShort(reason, cause, words));
    };
    places.queue.push(onTurn);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

/** @throws InvalidOptionError unless the timeout is a positive finite number */
export function assertTimeout(timeoutSeconds: unknown): asserts timeoutSeconds is number {
  if (typeof timeoutSeconds === "number" && Number.isFinite(timeoutSeconds) && timeoutSeconds > 0) return;
  const given = typeof timeoutSeconds === "number" ? String(timeoutSeconds) : `a ${typeof timeoutSeconds}`;
  throw new InvalidOptionError(`The timeout must be a positive, finite number of seconds, not ${given}.`);
}

/** Waits, or until the signal fires, and lets the event loop read what has arrived meanwhile. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
  // A busy event loop may run the timer before it looks at its pipes; an immediate comes after.
  await setImmediate();
}

/** The value, or `undefined` as soon as the signal fires. */
export async function unlessCut<T>(value: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let onAbort = () => {};
  const cut = new Promise<undefined>((resolve) => {
    onAbort = () => resolve(undefined);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([value, cut]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
