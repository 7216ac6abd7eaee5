import { existsSync } from "node:fs";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startApp } from "../support/app.ts";
import { until } from "../support/continuous.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { startScript } from "../support/script.ts";
import { overtimeOf, setUp, waitsForOthers } from "../support/setup.ts";
import { lateWriter, rowsIn, startWriter, type WriterOptions, writeRows } from "../support/sqlite.ts";

// Another process has the database open.

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** A database of 30 rows that another process has open. */
async function heldBy(options: WriterOptions) {
  paths += 1;
  const url = replicaUrl(s3.port, `in-use/${paths}.db`);
  const { config, log, files } = setUp(url);
  const other = await startWriter(config.dbpath, { rows: 30, ...options });
  onTestFinished(() => other.finish());
  const name = `node writer.mjs (pid ${other.pid})`;
  return {
    config,
    log,
    files,
    other,
    name,
    waiting: () => until(() => waitsForOthers(log)),
    rowsInReplica: async () => rowsIn(await setUp(url).config.restore()),
  };
}

describe("a database that another process has open stays until that has closed it:", () => {
  test.each<[string, WriterOptions]>([
    ["an idle connection in rollback-journal mode", { after: "hold", journal: "delete" }],
    ["a reader in a transaction", { after: "read" }],
  ])("%s", async (_, options) => {
    const { config, files, other, waiting, rowsInReplica } = await heldBy(options);
    const replicated = config.timedReplicate(50);
    await waiting();
    expect(existsSync(config.dbpath)).toBe(true);
    expect(await rowsInReplica()).toBe(30);
    await other.finish();
    expect(await replicated).toBe(true);
    expect(files()).toEqual([]);
    expect(await rowsInReplica()).toBe(30);
  });

  test("an idle connection in WAL mode, which commits once more after the first proof", async () => {
    const { config, files, other, waiting, rowsInReplica } = await heldBy({ after: "hold" });
    const replicated = config.timedReplicate(50);
    await waiting();
    process.kill(other.pid as number, "SIGUSR2");
    await until(() => other.acked === 31);
    await other.finish();
    expect(await replicated).toBe(true);
    expect(files()).toEqual([]);
    expect(await rowsInReplica()).toBe(31);
  });
});

test("two processes of one app that are ended together: what the second one commits in its close() is in the replica, and both end with 0", async () => {
  const { config } = setUp(replicaUrl(s3.port, "in-use/app.db"));
  const start = (rows: number, close: string) =>
    startScript(
      [config],
      `const db = open(config, ${rows});
      setInterval(() => {}, 60_000);
      const told = new Promise((done) => process.once("SIGUSR2", done));
      config.onShutdown({ timeoutSeconds: 100, close: async () => { ${close} db.close(); } });
      say({ ready: true });`,
    );
  const first = start(20, "");
  await first.event("ready");
  const second = start(0, "await told; db.write();");
  await second.event("ready");
  for (const app of [first, second]) app.kill("SIGTERM");
  await first.logged(/waiting for who else has the database open: node/);
  second.kill("SIGUSR2");
  expect(await first.ended).toEqual({ code: 0, signal: null });
  expect(await second.ended).toEqual({ code: 0, signal: null });
  expect(existsSync(config.dbpath)).toBe(false);
  expect(rowsIn(await config.restore())).toBe(21);
});

test("one that never closes it: `in-use` at the deadline, with its name, and everything is in the replica", async () => {
  const { config, name, rowsInReplica } = await heldBy({ after: "hold" });
  const call = (seconds: number) =>
    overtimeOf(seconds, () => config.replicateOnce({ timeoutSeconds: seconds }));
  let { result, overtimeMs } = await call(4);
  // A busy machine may take longer to come to the proof.
  if (!result.ok && result.reason !== "in-use") ({ result, overtimeMs } = await call(30));
  expect(result).toMatchObject({
    ok: false,
    reason: "in-use",
    message: expect.stringContaining(`the database stays: another process has it open: ${name}.`),
  });
  expect(overtimeMs).toBeLessThan(250);
  expect(existsSync(config.dbpath)).toBe(true);
  expect(await rowsInReplica()).toBe(30);
});

test("one that opens it between the last look for others and the removal: it is put back", async () => {
  const url = replicaUrl(s3.port, "in-use/moment.db");
  const { config, files } = setUp(url);
  await writeRows(config.dbpath, 30, { after: "kill" });
  const app = startApp({
    config,
    method: "timedReplicate",
    args: [50],
    imports: ["./last-moment.mjs"],
    env: lateWriter(config.dbpath, { rows: 0, after: "hold" }),
  });
  const { outcome, stderr } = await app.ended;
  expect(stderr).toContain("waiting for who else has the database open: node writer.mjs");
  expect(outcome, stderr).toEqual({ value: true });
  expect(files()).toEqual([]);
  expect(rowsIn(await setUp(url).config.restore())).toBe(30);
});

test("where the database is to stay, nobody is waited for or warned of, not even this process", async () => {
  const { config, log, rowsInReplica } = await heldBy({ after: "hold" });
  const own = new Database(config.dbpath);
  onTestFinished(() => void own.close());
  own.prepare("SELECT count(*) FROM t").get();
  expect(await config.replicateOnce({ timeoutSeconds: 50, keepLocal: true })).toMatchObject({ ok: true });
  expect(log.at(40)).toEqual([]);
  expect(await rowsInReplica()).toBe(30);
});
