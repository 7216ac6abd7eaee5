import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type AppCall, startApp } from "../support/app.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

// A kill at every file-changing step, before it and after it, in turn. What litestream itself changes is not among the
// steps: it is another process.

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const ROWS = 25;

/** Runs the scene once for each step and moment, and boots after each kill; every row must be there. */
async function killAtEveryStep(
  name: string,
  prepare: (app: ReturnType<typeof setUp>) => Promise<Pick<AppCall, "method" | "args">>,
): Promise<number> {
  const run = async (killAt: string) => {
    const app = setUp(replicaUrl(s3.port, `kill/${name}/${killAt}.db`));
    const call = { config: app.config, ...(await prepare(app)) };
    const env = { KILL_AT: killAt };
    return { app, ...(await startApp({ ...call, imports: ["./step-killer.mjs"], env }).ended) };
  };
  const whole = await run("none");
  expect(whole.outcome, whole.stderr).not.toHaveProperty("error");
  const steps = Number(/^steps (\d+)$/m.exec(whole.stderr)?.[1]);

  let kills = 0;
  const kill = async (killAt: string) => {
    const { app, signal, outcome, stderr } = await run(killAt);
    // litestream's folder holds now more files, now fewer, and each removal is a step: a run may have no such step.
    if (signal === null) expect(outcome, stderr).not.toHaveProperty("error");
    else kills += 1;
    await app.config.restore({ ifDbNotExists: true, ifReplicaExists: true });
    expect(rowsIn(app.config.dbpath), `${name}, killed at ${killAt}`).toBe(ROWS);
    // And the life that was booted this way comes to a good end.
    expect(await app.config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
    expect(app.files()).toEqual([]);
  };
  const all = Array.from({ length: steps }, (_, i) => [`${i + 1}:before`, `${i + 1}:after`]).flat();
  const waiting = [...all];
  // Most of the time is litestream 0.3 waiting for its next second.
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await kill(next);
  };
  await Promise.all(Array.from({ length: 6 }, worker));
  return kills;
}

test("timedReplicate: a kill at any step loses nothing", async () => {
  const kills = await killAtEveryStep("replicate", async ({ config }) => {
    await writeRows(config.dbpath, ROWS, { after: "kill" });
    return { method: "timedReplicate", args: [30] };
  });
  expect(kills).toBeGreaterThanOrEqual(10);
}, 900_000);

test("delete: a kill at any step leaves no database without its -wal", async () => {
  const kills = await killAtEveryStep("delete", async ({ config }) => {
    await writeRows(config.dbpath, 5, { after: "kill" });
    // The replica has every row; what the -wal of this machine holds is in it, too.
    await writeRows(config.dbpath, ROWS - 5, { after: "kill" });
    expect(await config.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).toMatchObject({ ok: true });
    return { method: "delete" };
  });
  expect(kills).toBeGreaterThanOrEqual(10);
}, 900_000);

test("restore: a kill at any step is mended by the next boot", async () => {
  const kills = await killAtEveryStep("restore", async ({ config }) => {
    await writeRows(config.dbpath, ROWS);
    expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
    // What an older life may have left: a -wal that would be replayed into the restored file.
    for (const suffix of ["-wal", "-shm", "-journal"]) writeFileSync(config.dbpath + suffix, "stale");
    return { method: "restore" };
  });
  expect(kills).toBeGreaterThanOrEqual(10);
}, 900_000);
