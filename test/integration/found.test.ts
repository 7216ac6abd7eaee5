import { afterAll, beforeAll, expect, test } from "vitest";
import { type History, type Life, PLAIN as plain } from "../lives/history.ts";
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

async function playAll(start: History["database"]["start"], ...lives: Life[]): Promise<Report> {
  const database: History["database"] = { journal: "wal", pageSize: 4096, autoVacuum: 0, start };
  const version = { name: VERSION, file: LITESTREAM, is03: IS_0_3, mute: false };
  const report = new Report();
  await play({ database, litestream: 0, smallDisk: false, lives }, [version], s3, report);
  return report;
}

test("what the app checkpoints after a replication that kept the database is in the next one: 0.5 missed it", async () => {
  const report = await playAll("1 MB", {
    ...plain,
    work: { ...plain.work, rows: 19, churn: true, sync: true, checkpoint: "PASSIVE" },
    end: { ...plain.end, close: false, writer: "other" } as Life["end"],
  });
  expect(report.answers).toMatchObject({ true: expect.any(Number) });
});

test("a litestream by hand that replicates the restored database to another place is not taken for another machine", async () => {
  const company = { who: "litestream", leaves: "soon", afterMs: 1500, place: "other" } as const;
  const report = await playAll("nothing", plain, { ...plain, end: { ...plain.end, company } as Life["end"] });
  expect(report.answers).toEqual({ true: 4 });
});
