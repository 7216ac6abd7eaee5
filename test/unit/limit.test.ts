import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { CutShort, PLACES, pause, unlessCut, withLimit, withTurn } from "../../src/litestream/limit.ts";

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

  test("one caller's signal for many calls ends them all, without a warning of Node's", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on("warning", onWarning);
    onTestFinished(() => void process.off("warning", onWarning));
    const caller = new AbortController();
    const calls = Array.from({ length: 50 }, () => withLimit(5, caller.signal, reasonOf));
    await new Promise(setImmediate); // a warning comes a tick later
    expect(warnings).toEqual([]);
    caller.abort("SIGTERM came");
    for (const reason of await Promise.all(calls)) {
      expect(reason).toMatchObject({ reason: "aborted", cause: "SIGTERM came" });
    }
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

describe("withTurn", () => {
  /** A call that runs until it is told to end. */
  function startCall(name: string, begun: string[], signal = new AbortController().signal) {
    const { promise, resolve, reject } = withResolvers<string>();
    const done = withTurn(signal, () => {
      begun.push(name);
      return promise;
    });
    done.catch(() => {}); // each test looks at those that it lets fail
    return { done, end: () => resolve(name), fail: reject };
  }
  const startCalls = (names: readonly string[], begun: string[]) =>
    names.map((name) => startCall(name, begun));
  const numbered = (count: number) => Array.from({ length: count }, (_, i) => `call ${i}`);
  /** Lets every promise that can settle do so. */
  const settled = () => new Promise(setImmediate);

  /** All places can be had again, and no more than all. */
  async function expectAllFree() {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES + 1), begun);
    await settled();
    expect(begun).toEqual(numbered(PLACES));
    for (const call of calls) call.end();
    expect(await Promise.all(calls.map(({ done }) => done))).toEqual(numbered(PLACES + 1));
  }

  test("runs as many at a time as there are places, the others in the order of their coming", async () => {
    const begun: string[] = [];
    const names = numbered(3 * PLACES);
    const calls = startCalls(names, begun);
    await settled();
    expect(begun).toEqual(names.slice(0, PLACES));
    // In whatever order they end, the next in line comes in, and nobody else.
    const running = calls.slice(0, PLACES).toReversed();
    for (const [i, call] of [...running, ...calls.slice(PLACES)].entries()) {
      call.end();
      await settled();
      expect(begun).toEqual(names.slice(0, PLACES + i + 1));
    }
    await expectAllFree();
  });

  test("a newcomer does not slip in before those that wait", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES + 1), begun);
    await settled();
    calls[3]?.end();
    await calls[3]?.done; // its place is given back, and the one that waits may not have begun
    const newcomer = startCall("newcomer", begun);
    await settled();
    expect(begun).toEqual(numbered(PLACES + 1));
    for (const call of [...calls, newcomer]) call.end();
    await newcomer.done;
    await expectAllFree();
  });

  test("a work that fails or throws gives its place back", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES), begun);
    await settled();
    for (const call of calls) call.fail(new RangeError("no"));
    for (const call of calls) await expect(call.done).rejects.toThrow(RangeError);
    const thrown = withTurn(new AbortController().signal, () => {
      throw new RangeError("at once");
    });
    await expect(thrown).rejects.toThrow(RangeError);
    await expectAllFree();
  });

  test("a work that gives its place away has the next one in, and waits for another one to go on", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES - 1), begun);
    const [given, again] = [withResolvers<void>(), withResolvers<void>()];
    const patient = withTurn(new AbortController().signal, async (turn) => {
      await given.promise;
      turn.give();
      turn.give(); // there is but one to give
      await again.promise;
      await turn.take();
      begun.push("patient");
    });
    const others = startCalls(["first", "second"], begun);
    await settled();
    expect(begun).toEqual(numbered(PLACES - 1));
    given.resolve();
    await settled();
    expect(begun).toEqual([...numbered(PLACES - 1), "first"]);
    again.resolve();
    await settled();
    others[0]?.end();
    await settled();
    expect(begun.slice(PLACES)).toEqual(["second"]);
    others[1]?.end();
    await patient;
    expect(begun.at(-1)).toBe("patient");
    for (const call of calls) call.end();
    await Promise.all(calls.map(({ done }) => done));
    await expectAllFree();
  });

  test("an abort in line ends the wait, says how many were before it, and leaves nothing", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES + 2), begun);
    const limit = new AbortController();
    const cut = startCall("cut", begun, limit.signal);
    const behindIt = startCall("behind it", begun);
    limit.abort(new CutShort("timeout", "why"));
    const error = await cut.done.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CutShort);
    expect(error).toMatchObject({
      reason: "timeout",
      cause: "why",
      waiting: `it waited for its turn behind ${PLACES + 2} other calls (${PLACES} at a time run litestream in one process)`,
    });
    expect(getEventListeners(limit.signal, "abort")).toEqual([]);
    for (const call of [...calls, behindIt]) call.end();
    await behindIt.done;
    expect(begun).toEqual([...numbered(PLACES + 2), "behind it"]);
    await expectAllFree();
  });

  test("whose time is up in the moment of its turn does not begin, and gives its place back", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES), begun);
    const limit = new AbortController();
    const cut = startCall("cut", begun, limit.signal);
    const behindIt = startCall("behind it", begun);
    await settled();
    const reason = new CutShort("timeout");
    calls[0]?.end();
    queueMicrotask(() => limit.abort(reason)); // it has its place, and has not gone on yet
    await expect(cut.done).rejects.toBe(reason);
    await settled();
    expect(begun).toEqual([...numbered(PLACES), "behind it"]);
    for (const call of [...calls, behindIt]) call.end();
    await behindIt.done;
    await expectAllFree();
  });

  test("does not begin where the signal has fired before", async () => {
    const limit = new AbortController();
    limit.abort(new CutShort("aborted"));
    const begun: string[] = [];
    const expectRefused = () =>
      expect(startCall("late", begun, limit.signal).done).rejects.toBe(limit.signal.reason);
    await expectRefused();
    const calls = startCalls(numbered(PLACES), begun);
    await expectRefused(); // nor does it wait in line
    for (const call of calls) call.end();
    expect(begun).toEqual(numbered(PLACES));
    await expectAllFree();
  });

  test("has had its turn: no listener is left, and the signal is the work's own matter", async () => {
    const begun: string[] = [];
    const calls = startCalls(numbered(PLACES), begun);
    const limit = new AbortController();
    const call = startCall("in turn", begun, limit.signal);
    calls[0]?.end();
    await settled();
    expect(begun).toContain("in turn");
    expect(getEventListeners(limit.signal, "abort")).toEqual([]);
    limit.abort(new CutShort("timeout"));
    for (const other of [...calls, call]) other.end();
    expect(await call.done).toBe("in turn");
    await expectAllFree();
  });
});

/** `Promise.withResolvers`, which Node 20 lacks. */
function withResolvers<T = never>() {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
