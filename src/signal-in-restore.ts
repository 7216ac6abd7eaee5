import { setMaxListeners } from "node:events";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread } from "node:worker_threads";
import type { Logger } from "./logger.ts";
import { processState } from "./process-state.ts";

/** A `restore()` that is under way. */
interface Run {
  readonly dbpath: string;
  readonly logger: Logger;
  readonly abort: () => void;
  /** Resolves when nothing of it goes on. */
  readonly over: Promise<void>;
}

interface Restores {
  readonly running: Set<Run>;
  /**
   * Set once the process ends; resolves only if `process.exit()` has not ended the process. No restore settles before that: the app
   * would go on, or fail with an exception.
   */
  ending: Promise<unknown> | undefined;
  /** The listener, of the copy of the package that was first. */
  onSignal: ((signal: NodeJS.Signals) => void) | undefined;
}

const restores = processState(
  "restores and signals",
  (): Restores => ({ running: new Set(), ending: undefined, onSignal: undefined }),
);

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** A litestream that has been killed is gone at once, unless its disk hangs. */
const PATIENCE_MS = 5000;

/**
 * Runs a restore. A signal ends the restore and the process if nobody else listens to that signal. The first process of a
 * container needs that: the kernel throws its signals away, and the app would boot.
 * @param caller the caller's own signal
 * @param work gets the signal that ends it
 */
export async function endingOnSignal(
  { dbpath, logger }: { dbpath: string; logger: Logger },
  caller: AbortSignal | undefined,
  work: (signal: AbortSignal | undefined) => Promise<void>,
): Promise<void> {
  if (!isMainThread) return await work(caller);
  if (restores.ending) await restores.ending;
  const end = new AbortController();
  const onAbort = () => end.abort(caller?.reason);
  // One signal for more than ten restores is no leak.
  if (caller !== undefined) setMaxListeners(0, caller);
  if (caller?.aborted) onAbort();
  caller?.addEventListener("abort", onAbort, { once: true });
  let setOver = () => {};
  const over = new Promise<void>((resolve) => {
    setOver = resolve;
  });
  const run: Run = { dbpath, logger, over, abort: () => end.abort(new Error("a signal ends the process")) };
  restores.running.add(run);
  restores.onSignal ??= onSignal;
  for (const name of SIGNALS) {
    if (!process.listeners(name).includes(restores.onSignal)) process.on(name, restores.onSignal);
  }
  try {
    await work(end.signal);
  } finally {
    caller?.removeEventListener("abort", onAbort);
    restores.running.delete(run);
    if (restores.running.size === 0) for (const name of SIGNALS) process.off(name, restores.onSignal);
    setOver();
    if (restores.ending) await restores.ending;
  }
}

/** For the end of the process: ends all restores, and lets no further one begin. Resolves when nothing of them goes on. */
export async function endRestores(): Promise<void> {
  restores.ending ??= new Promise(() => {});
  await abortAll();
}

async function abortAll(): Promise<void> {
  const over = [...restores.running].map((run) => {
    run.abort();
    return run.over;
  });
  await Promise.all(over);
}

function onSignal(signal: NodeJS.Signals): void {
  if (restores.ending || othersListen(signal)) return;
  const code = 128 + constants.signals[signal];
  for (const { dbpath, logger } of restores.running) {
    logger.warn(
      { dbpath },
      `${signal} in restore(), and nobody else listens to it: the restore is cut short, and the process ends with exit code ${code}`,
    );
  }
  restores.ending = Promise.race([abortAll(), sleep(PATIENCE_MS)]).then(() => process.exit(code));
}

/**
 * Whether anybody else decides what the signal does. signal-exit, a part of many packages, does not: signal-exit ends the
 * process only if no other listener is there.
 */
function othersListen(signal: NodeJS.Signals): boolean {
  const { [Symbol.for("signal-exit emitter")]: version4 } = globalThis as Record<symbol, unknown>;
  const { __signal_exit_emitter__: version3 } = process as unknown as Record<string, unknown>;
  const polite = [version4, version3].map((emitter) => Number((emitter as Emitter | undefined)?.count) || 0);
  const own = 1;
  return process.listenerCount(signal) > own + polite.reduce((sum, count) => sum + count, 0);
}

interface Emitter {
  readonly count?: unknown;
}
