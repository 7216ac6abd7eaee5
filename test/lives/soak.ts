// `npm run soak -- --minutes 10`: lives for as long as one likes, on as many litestreams as one names. Every history that
// breaks an invariant is shrunk and printed with its seed.
//   --minutes N | --lives N   when to stop (default: 10 minutes)
//   --litestream FILE         a litestream that the lives may have; again for more, the oldest first (default: npm's)
//   --seed N                  where the choice of histories begins (default: the time)
//   --workers N               how many histories side by side (default: 4)
//   --large                   every database begins with 500 MB
//   --continuous N            in how many of a hundred lives it replicates all the time (default: 15)
//   --no-shrink               print a failing history as it is
//   --report FILE             where the totals go, as JSON
// VERSITYGW_BIN names versitygw; without it the S3 server is fauxqs, in this process.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { parseArgs } from "node:util";
import fc from "fast-check";
import { LITESTREAM, saysWhatIsUp } from "../support/litestream.ts";
import { startS3 } from "../support/s3.ts";
import { type History, histories } from "./history.ts";
import { Report } from "./report.ts";
import type { Version } from "./stage.ts";
import { play } from "./world.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    lives: { type: "string" },
    litestream: { type: "string", multiple: true, default: [LITESTREAM] },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    workers: { type: "string", default: "4" },
    report: { type: "string" },
    "no-shrink": { type: "boolean", default: false },
    continuous: { type: "string", default: "15" },
    large: { type: "boolean", default: false },
  },
});
const maxLives = Number(values.lives ?? Number.POSITIVE_INFINITY);
const maxMinutes = Number(values.minutes ?? (values.lives === undefined ? 10 : Number.POSITIVE_INFINITY));
const start = performance.now();
const minutes = () => (performance.now() - start) / 60_000;

function versionOf(name: string): Version {
  const file = resolve(name);
  const ask = (args: string[]) => spawnSync(file, args, { encoding: "utf8" });
  const is03 = /^\s+generations\s/m.test(ask([]).stdout);
  const version = ask(["version"]).stdout.trim();
  // One that `go install` has built does not know its own.
  const named = /^v?\d/.test(version) ? version.replace("v", "") : basename(name);
  return { name: named, file, is03, mute: is03 && !saysWhatIsUp(file) };
}

const versions = values.litestream.map(versionOf);
const s3 = await startS3();
const report = new Report();
let failed = false;
let seed = Number(values.seed);
const over = () => failed || report.lives >= maxLives || minutes() >= maxMinutes;
const say = () => console.error(`${minutes().toFixed(1)} min: ${report.line}`);
const progress = setInterval(say, 15_000);

async function worker(): Promise<void> {
  while (!over()) {
    seed += 1;
    const start = values.large ? (["500 MB"] as const) : undefined;
    const property = fc.asyncProperty(histories(start, Number(values.continuous)), async (history) => {
      // A failure elsewhere does not end a history that is being shrunk here.
      if (!over() || failedHere) await play(history, versions, s3, report).catch((e) => keep(e, history));
    });
    let failedHere = false;
    const keep = (error: unknown, history: History) => {
      if (!failedHere) {
        console.log("an invariant is broken; now the history is shrunk:", error, fc.stringify(history));
      }
      failedHere = true;
      failed = true;
      throw error;
    };
    const details = await fc.check(property, { seed, numRuns: 10, endOnFailure: values["no-shrink"] });
    if (details.failed) console.log(fc.defaultReportMessage(details), details.errorInstance);
  }
}

console.error(`seed ${values.seed}, litestream ${versions.map(({ name }) => name).join(", ")}`);
await Promise.all(Array.from({ length: Number(values.workers) }, worker));
clearInterval(progress);
await s3.stop();
const totals = { minutes: Number(minutes().toFixed(1)), ...report };
if (values.report) writeFileSync(values.report, `${JSON.stringify(totals, undefined, 2)}\n`);
console.log(`${totals.minutes} minutes\n\n${report.table}\n`);
say();
process.exitCode = failed ? 1 : 0;
