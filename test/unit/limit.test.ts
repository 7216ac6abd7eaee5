import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { CutShort, pause, unlessCut, withLimit } from "../../src/litestream/limit.ts";

const never = new Promise<never>(() => {});

/** The reason of the signal, once it has fired. */
async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await new Promise((done) => signal.addEventListener("abort", done, { once: true }));
  return signal.reason;
}

describe("withLimit", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());

  test("gives the work's value and leaves no timer and no listener", async () => {
    const caller = new AbortController();
    expect(await withLimit(5, caller.signal, async () => "done")).toBe("done");
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(caller.signal, "abort")).toEqual([]);
  });

  test("passes the work's failure on and leaves no timer and no listener", async () => {
    const caller = new AbortController();
    const work = withLimit(5, caller.signal, async () => {
      throw new RangeError("no");
    });
    await expect(work).rejects.toThrow(RangeError);
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(caller.signal, "abort")).toEqual([]);
  });

  test("fires when the time is up, not before", async () => {
    await withLimit(5, undefined, async (signal) => {
      vi.advanceTimersByTime(4999);
      expect(signal.aborted).toBe(false);
      vi.advanceTimersByTime(1);
      expect(await reasonOf(signal)).toMatchObject({ reason: "timeout" });
    });
  });

  test("fires when the caller aborts, with the caller's reason as the cause", async () => {
    const caller = new AbortController();
    await withLimit(5, caller.signal, async (signal) => {
      caller.abort("SIGTERM came");
      const reason = await reasonOf(signal);
      expect(reason).toBeInstanceOf(CutShort);
      expect(reason).toMatchObject({ reason: "aborted", cause: "SIGTERM came" });
    });
  });

  test("has fired before the work begins where the caller had aborted", async () => {
    const signal = AbortSignal.abort("too late");
    const seen = await withLimit(5, signal, async ({ aborted, reason }) => ({ aborted, reason }));
    expect(seen).toMatchObject({ aborted: true, reason: { reason: "aborted", cause: "too late" } });
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("keeps the first reason", async () => {
    const caller = new AbortController();
    await withLimit(1, caller.signal, async (signal) => {
      vi.advanceTimersByTime(1000);
      caller.abort();
      expect(signal.reason).toMatchObject({ reason: "timeout" });
    });
  });

  test("never fires without a time and a caller", async () => {
    await withLimit(undefined, undefined, async (signal) => {
      expect(vi.getTimerCount()).toBe(0);
      expect(signal.aborted).toBe(false);
    });
  });

  test("a time that is too long for a timer does not fire at once", async () => {
    await withLimit(2 ** 31 / 1000 + 1, undefined, async (signal) => {
      vi.advanceTimersByTime(2 ** 31 - 2);
      expect(signal.aborted).toBe(false);
    });
  });
});

describe("unlessCut", () => {
  test("gives the value, and leaves no listener", async () => {
    const { signal } = new AbortController();
    expect(await unlessCut(Promise.resolve(7), signal)).toBe(7);
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("passes a failure on, and leaves no listener", async () => {
    const { signal } = new AbortController();
    await expect(unlessCut(Promise.reject(new RangeError("no")), signal)).rejects.toThrow(RangeError);
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("gives undefined as soon as the signal fires, and leaves no listener", async () => {
    const controller = new AbortController();
    const cut = unlessCut(never, controller.signal);
    controller.abort();
    expect(await cut).toBeUndefined();
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  });

  test("gives undefined where the signal has fired, also for a value that is there", async () => {
    expect(await unlessCut(never, AbortSignal.abort())).toBeUndefined();
    expect(await unlessCut(Promise.resolve(7), AbortSignal.abort())).toBeUndefined();
  });

  test("a value that fails after the cut troubles nobody", async () => {
    const controller = new AbortController();
    const { promise, reject } = withResolvers();
    const cut = unlessCut(promise, controller.signal);
    controller.abort();
    await cut;
    reject(new Error("too late")); // vitest fails the run on an unhandled rejection
    await new Promise(setImmediate);
  });
});

describe("pause", () => {
  const HOUR = 3_600_000;

  test("ends at once where the signal has fired", async () => {
    await pause(HOUR, AbortSignal.abort());
  });

  test("ends when the signal fires, and leaves no listener", async () => {
    const controller = new AbortController();
    const paused = pause(HOUR, controller.signal);
    controller.abort();
    await paused;
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  });

  test("lasts as long as it is told, and leaves no listener", async () => {
    const { signal } = new AbortController();
    const start = performance.now();
    await pause(30, signal);
    expect(performance.now() - start).toBeGreaterThanOrEqual(28); // timers count whole milliseconds
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("lets the event loop run what has come meanwhile", async () => {
    const order: string[] = [];
    const { signal } = new AbortController();
    const paused = pause(0, signal).then(() => order.push("paused"));
    setImmediate(() => order.push("came"));
    await paused;
    expect(order).toEqual(["came", "paused"]);
  });
});

/** `Promise.withResolvers`, which Node 20 lacks. */
function withResolvers() {
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<never>((_, no) => {
    reject = no;
  });
  return { promise, reject };
}
