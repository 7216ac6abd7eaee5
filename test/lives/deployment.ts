import fc from "fast-check";
import { type FaultPlan, faultPlan, inPercent } from "./faults.ts";

// What happens to an app in a deployment, besides faults and kills: others have its database open, somebody else's handler
// ends it, its settings are another's. Plain data, as all of a history.

/** Another process that has the database open while the app shuts down. */
export interface Company {
  /** `reader` is in the middle of a read; `late` is a second process of the app, that commits in its own close(). */
  who: "reader" | "idle" | "late" | "litestream";
  leaves: "soon" | "never";
  afterMs: number;
  /** Where a litestream by hand replicates to. */
  place: "same" | "other";
}

/** The app has called onShutdown(), and its process ends so. */
export interface Exit {
  how: "exit";
  /** `library`: only SIGTERM, and nobody else's handler. */
  by: "library" | "handler" | "exit" | "throw" | "empty";
  code: 0 | 143;
  /** Whether the other handler was there before the library's. */
  first: boolean;
  laterMs: number;
  fault: FaultPlan | undefined;
  company: Company | undefined;
}

/** What happens before a life, on its disk. */
export type Mishap =
  /** The record of what this machine knows of the replica; mended by hand, or with `takeOver`. */
  | {
      what: "record";
      is: "a directory" | "unreadable" | "empty" | "damaged" | "lost";
      mend: "by hand" | "takeOver";
    }
  /** The settings name what is no S3 store, and answers 200 to everything. */
  | { what: "no store"; body: "" | "<!doctype html><title>Console</title>" | "{}" }
  /** The settings name the place of another app's backup. */
  | { what: "another app's address" }
  /** An app without restore(), on a disk of its own, has this one's address; `takeOver`: it is told to go ahead. */
  | { what: "stranger"; rows: number; takeOver: boolean };

export const company: fc.Arbitrary<Company> = fc.record({
  who: fc.constantFrom("reader", "reader", "idle", "late", "late", "late", "litestream"),
  leaves: fc.constantFrom("soon", "soon", "soon", "never"),
  afterMs: fc.constantFrom(0, 20, 300, 1500),
  place: fc.constantFrom("other", "other", "same"),
});

export const exit: fc.Arbitrary<Exit> = fc.record({
  how: fc.constant("exit"),
  by: fc.constantFrom("library", "library", "handler", "handler", "handler", "exit", "throw", "empty"),
  code: fc.constantFrom(0, 143),
  first: fc.boolean(),
  laterMs: fc.constantFrom(0, 0, 5, 100, 700, 2000),
  fault: inPercent(15, faultPlan),
  company: inPercent(10, company),
});

export const mishap: fc.Arbitrary<Mishap> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      what: fc.constant("record" as const),
      is: fc.constantFrom("a directory" as const, "unreadable", "empty", "damaged", "lost"),
      mend: fc.constantFrom("by hand" as const, "takeOver"),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constant("no store" as const),
      body: fc.constantFrom("" as const, "<!doctype html><title>Console</title>", "{}"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("another app's address" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constant("stranger" as const),
      rows: fc.constantFrom(1, 20),
      takeOver: fc.boolean(),
    }),
  },
);
