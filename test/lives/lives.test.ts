import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { IS_0_3, LITESTREAM, saysWhatIsUp, VERSION } from "../support/litestream.ts";
import { type S3, startS3 } from "../support/s3.ts";
import { histories } from "./history.ts";
import { Report } from "./report.ts";
import { play } from "./world.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const version = { name: VERSION, file: LITESTREAM, is03: IS_0_3, mute: IS_0_3 && !saysWhatIsUp(LITESTREAM) };
const report = new Report();
afterAll(() =>
  console.log(
    report.line,
    Object.keys(report.notRun)
      .map((what) => `; not run: ${what}`)
      .join(""),
  ),
);

// Side by side, since most of the time is waiting.
test.concurrent.each([1, 2, 3, 4])(
  "whole lives of an app, with faults and kills: no acknowledged row is lost (seed %d)",
  async (seed) => {
    await fc.assert(
      fc.asyncProperty(histories(), (history) => play(history, [version], s3, report)),
      { seed, numRuns: 4 },
    );
    expect(report.boots).toBeGreaterThan(0);
  },
  1_800_000,
);
