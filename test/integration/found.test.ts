import { afterAll, beforeAll, expect, test } from "vitest";
import type { History } from "../lives/history.ts";
import { Report } from "../lives/report.ts";
import { play } from "../lives/world.ts";
import { IS_0_3, LITESTREAM, VERSION } from "../support/litestream.ts";
import { type S3, startS3 } from "../support/s3.ts";

// Histories that the lives have found.

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const quiet = { fault: undefined, signal: undefined, disk: undefined };

test("what the app checkpoints after a replication that kept the database is in the next one: 0.5 missed it", async () => {
  const history: History = {
    database: { journal: "wal", pageSize: 4096, autoVacuum: 0, start: "1 MB" },
    litestream: 0,
    smallDisk: false,
    lives: [
      {
        disk: "same",
        litter: false,
        boot: quiet,
        work: {
          rows: 19,
          bytes: 100,
          churn: true,
          by: "app",
          sync: true,
          checkpoint: "PASSIVE",
          clockJump: 0,
        },
        vanish: undefined,
        rival: undefined,
        continuous: undefined,
        killStep: undefined,
        end: {
          how: "shutdown",
          close: false,
          company: undefined,
          writer: "other",
          everyMs: 20,
          checkpoints: false,
          writerMs: 50,
          calls: 1,
          stop: undefined,
          ...quiet,
        },
        litestream: 0,
        spelling: "plain",
        before: undefined,
      },
    ],
  };
  const report = new Report();
  await play(history, [{ name: VERSION, file: LITESTREAM, is03: IS_0_3, mute: false }], s3, report);
  expect(report.answers).toMatchObject({ true: expect.any(Number) });
});
