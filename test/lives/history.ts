import fc from "fast-check";
import { type Company, company, type Exit, exit, type Mishap, mishap } from "./deployment.ts";
import { faultPlan, inPercent, type Phase, type SignalPlan, signalPlan } from "./faults.ts";
import { SPELLINGS, type Spelling } from "./places.ts";

// A history is what happens to one app and its replica: lives on machines, one after the other. Plain data, so that
// fast-check can choose, shrink and print it.

/** The phase lasts from the call of `replicate()` to the last of the rows that are committed beside it. */
export interface Continuous extends Phase {
  rows: number;
  everyMs: number;
  /** This signal to litestream as soon as it replicates. */
  strike: SignalPlan["signal"] | undefined;
  /** Looks from another machine as soon as it replicates: everything from before is there. */
  look: boolean;
  /** Waits, after the phase, until it says that all is up, and looks from another machine. */
  settle: boolean;
  /** Another machine writes meanwhile, once all is up; then this one commits so many more. */
  rival: { rows: number; more: number } | undefined;
  /** SIGKILL at its end, before any shutdown. */
  kill: "app" | "both" | undefined;
  /** Where the app is killed: the next one starts while its litestream may still be there. */
  hurry: boolean;
}

export interface Life {
  /** The disk of the life before, or that of a new machine. */
  disk: "same" | "empty";
  /** Puts what an older life left (`-wal`, `-shm`, litestream's folder, half a restore) where there is no database. */
  litter: boolean;
  boot: Phase & { disk: "full" | undefined };
  work: {
    rows: number;
    bytes: number;
    /** Also fills and frees pages. */
    churn: boolean;
    by: "app" | "other";
    /** Replicates in the middle, and keeps the database. */
    sync: boolean;
    checkpoint: "NONE" | "PASSIVE" | "TRUNCATE";
    /** The clock jumps by so many days: what is on the disk is from the future, or old. */
    clockJump: -1 | 0 | 1;
  };
  /** An object of the backup that vanishes while the app runs, as a share of their number. */
  vanish: number | undefined;
  /** Another machine, on an empty disk, restores, writes so many rows and shuts down, before this one does. */
  rival: number | undefined;
  /** Replicates all the time, from its work to its end. */
  continuous: Continuous | undefined;
  /** Kills the app at a step of the library's own: before or after its nth file-changing call. */
  killStep: { n: number; moment: "before" | "after" } | undefined;
  end:
    | { how: "crash" }
    | Exit
    | (Phase & {
        how: "shutdown";
        close: boolean;
        company: Company | undefined;
        writer: "none" | "same" | "other";
        everyMs: number;
        /** The writer also has SQLite move what it committed into the main file, and goes on in a `-wal` begun anew. */
        checkpoints: boolean;
        writerMs: number;
        calls: number;
        /** Where it replicates all the time: ends that with `stop`; without, or where it can't, with `replicateOnce`. */
        stop: "keep" | "delete" | undefined;
        disk: "full" | "read-only" | undefined;
      });
  /** Which litestream this life has, as a step from the one before: 1 is an upgrade, -1 a downgrade. */
  litestream: 0 | 1 | -1;
  /** How its settings spell the address of the replica. */
  spelling: Spelling;
  /** What happens before it. */
  before: Mishap | undefined;
}

export type Start = "nothing" | "0 bytes" | "1 MB" | "500 MB";

export interface History {
  database: {
    journal: "wal" | "delete";
    pageSize: number;
    autoVacuum: 0 | 1 | 2;
    /** What the first machine finds: nothing, a file of 0 bytes, or, once its app has begun, so much. */
    start: Start;
  };
  /** Where in the list of litestreams the first life is, as a share of their number. */
  litestream: number;
  /** Every machine has a disk of a few MB. */
  smallDisk: boolean;
  lives: Life[];
}

const QUIET = { fault: undefined, signal: undefined, disk: undefined };

/** A life to which nothing happens. */
export const PLAIN: Life = {
  disk: "same",
  litter: false,
  boot: QUIET,
  work: { rows: 5, bytes: 100, churn: false, by: "app", sync: false, checkpoint: "NONE", clockJump: 0 },
  vanish: undefined,
  rival: undefined,
  continuous: undefined,
  killStep: undefined,
  end: {
    how: "shutdown",
    close: true,
    company: undefined,
    writer: "none",
    everyMs: 20,
    checkpoints: false,
    writerMs: 50,
    calls: 1,
    stop: undefined,
    ...QUIET,
  },
  litestream: 0,
  spelling: "plain",
  before: undefined,
};

/** From 0 to below 1, evenly: most doubles that fast-check chooses are close to 0. */
const share = fc.nat(999).map((n) => n / 1000);

const continuous: fc.Arbitrary<Continuous> = fc.record({
  fault: inPercent(35, faultPlan),
  signal: inPercent(
    35,
    fc.record({
      who: fc.constantFrom("app", "litestream", "both"),
      signal: fc.constantFrom("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"),
      atRequest: fc.constantFrom(0, 1, 2, 3, 4, 6, 8, 10),
      laterMs: fc.constantFrom(0, 0, 1, 20, 400, 1100),
    }),
  ),
  rows: fc.constantFrom(1, 10, 30),
  strike: inPercent(25, fc.constantFrom("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")),
  everyMs: fc.constantFrom(1, 20, 100),
  look: inPercent(25, fc.constant(true)).map(Boolean),
  settle: fc.boolean(),
  rival: inPercent(
    15,
    fc.record({ rows: fc.integer({ min: 1, max: 20 }), more: fc.constantFrom(0, 0, 1, 10) }),
  ),
  kill: fc.constantFrom(undefined, undefined, "app", "app", "both"),
  hurry: fc.boolean(),
});

const life = (continuousPercent: number) =>
  fc.record({
    disk: fc.constantFrom("same", "same", "empty"),
    litter: fc.boolean(),
    boot: fc.record({
      fault: inPercent(25, faultPlan),
      signal: inPercent(20, signalPlan),
      disk: inPercent(10, fc.constant("full")),
    }),
    work: fc.record({
      rows: fc.oneof(fc.nat(20), fc.constantFrom(0, 300)),
      bytes: fc.constantFrom(1, 100, 3000),
      churn: fc.boolean(),
      by: fc.constantFrom("app", "app", "other"),
      sync: inPercent(20, fc.constant(true)).map(Boolean),
      checkpoint: fc.constantFrom("NONE", "NONE", "PASSIVE", "TRUNCATE"),
      clockJump: fc.constantFrom(0, 0, 0, 0, 0, 0, -1, 1),
    }),
    vanish: inPercent(15, share),
    rival: inPercent(12, fc.integer({ min: 1, max: 20 })),
    continuous: inPercent(continuousPercent, continuous),
    killStep: inPercent(
      12,
      fc.record({ n: fc.integer({ min: 1, max: 25 }), moment: fc.constantFrom("before", "after") }),
    ),
    end: fc.oneof(
      { weight: 1, arbitrary: fc.record({ how: fc.constant("crash") }) },
      { weight: 2, arbitrary: exit },
      {
        weight: 6,
        arbitrary: fc.record({
          how: fc.constant("shutdown"),
          close: fc.boolean(),
          company: inPercent(20, company),
          writer: fc.constantFrom("none", "none", "none", "none", "same", "other"),
          everyMs: fc.constantFrom(1, 20, 300),
          checkpoints: fc.boolean(),
          writerMs: fc.constantFrom(50, 600, 5000),
          calls: fc.constantFrom(1, 1, 1, 2),
          stop: fc.constantFrom(undefined, "delete", "keep"),
          fault: inPercent(30, faultPlan),
          signal: inPercent(25, signalPlan),
          disk: inPercent(12, fc.constantFrom("full", "read-only")),
        }),
      },
    ),
    litestream: fc.constantFrom(0, 0, 0, 0, 1, -1),
    spelling: fc.constantFrom("plain", "plain", "plain", ...SPELLINGS),
    before: inPercent(25, mishap),
  }) as fc.Arbitrary<Life>;

const START: readonly Start[] = ["nothing", "nothing", "0 bytes", "1 MB"];

/**
 * @param starts what the first machine may find
 * @param continuousPercent in how many of a hundred lives it replicates all the time
 */
export const histories = (starts: readonly Start[] = START, continuousPercent = 15): fc.Arbitrary<History> =>
  // Not biased: without faults small histories find nothing.
  fc.noBias(
    fc.record({
      database: fc.record({
        journal: fc.constantFrom<"wal" | "delete">("wal", "wal", "delete"),
        pageSize: fc.constantFrom(4096, 4096, 512, 65536),
        autoVacuum: fc.constantFrom<0 | 1 | 2>(0, 0, 1, 2),
        start: fc.constantFrom(...starts),
      }),
      litestream: share,
      smallDisk: starts === START ? fc.boolean() : fc.constant(false),
      lives: fc.array(life(continuousPercent), { minLength: 2, maxLength: 6, size: "max" }),
    }),
  );
