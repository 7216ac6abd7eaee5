import fc from "fast-check";
import type { Fault } from "../support/fault-proxy.ts";

// What goes wrong in a phase of a life, at the store or by a signal.

/** What the store does to some of the requests of a phase. */
export interface FaultPlan {
  fault: Fault;
  to: "any" | "GET" | "PUT";
  /** So many such requests go through first. */
  after: number;
  /** So many are hit; `all`: the store stays like that until the phase is over. */
  count: number | "all";
}

/** A signal to the app or to its litestream, when so many requests have come in the phase, or so much later. */
export interface SignalPlan {
  /** `app` gets SIGKILL, `litestream` the named signal; `both` get SIGKILL. */
  who: "app" | "litestream" | "both";
  signal: "SIGKILL" | "SIGTERM" | "SIGINT";
  /** 0: as soon as the phase begins. */
  atRequest: number;
  laterMs: number;
}

export interface Phase {
  fault: FaultPlan | undefined;
  signal: SignalPlan | undefined;
}

const fault: fc.Arbitrary<Fault> = fc.oneof(
  fc.constantFrom<Fault>("reset", "stall", "stall-body", "drop-response"),
  fc.record({ status: fc.constantFrom(403 as const, 404 as const, 500 as const, 503 as const) }),
  fc.record({ delayMs: fc.constantFrom(50, 500, 3000) }),
  fc.record({ slow: fc.record({ bytes: fc.constantFrom(100, 2000), everyMs: fc.constantFrom(1, 10) }) }),
);

export const faultPlan: fc.Arbitrary<FaultPlan> = fc.record({
  fault,
  to: fc.constantFrom("any", "GET", "PUT"),
  after: fc.constantFrom(0, 0, 1, 2, 3),
  count: fc.constantFrom<1 | 2 | "all">(1, 2, "all"),
});

export const signalPlan: fc.Arbitrary<SignalPlan> = fc.record({
  who: fc.constantFrom("app", "litestream"),
  signal: fc.constantFrom("SIGKILL", "SIGTERM", "SIGINT"),
  atRequest: fc.constantFrom(0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8),
  laterMs: fc.constantFrom(0, 0, 0, 0, 1, 5, 20, 100, 400, 1100),
});

/** Nothing, in so many of a hundred cases fewer than all. */
export const inPercent = <T>(percent: number, of: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 100 - percent, arbitrary: fc.constant(undefined) }, { weight: percent, arbitrary: of });
