import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { InvalidOptionError } from "../errors.ts";

/** setTimeout fires at once beyond this; it is 24.8 days. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Why a call was cut short; the `reason` of the signal that `withLimit` hands out. */
export class CutShort extends Error {
  readonly reason: "timeout" | "aborted";

  constructor(reason: "timeout" | "aborted", cause?: unknown) {
    super(reason, { cause });
    this.reason = reason;
  }
}

/** Runs the work with a signal that fires when the time is up or the caller aborts; the signal's reason is a `CutShort`. */
export async function withLimit<T>(
  timeoutSeconds: number | undefined,
  caller: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = new AbortController();
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
