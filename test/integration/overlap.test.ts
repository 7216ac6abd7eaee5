import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { callOf, startApp } from "../support/app.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { lateWriter, rowsIn, writeRows } from "../support/sqlite.ts";

// Two processes that use one database at the same time.

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const script = (name: string) => new URL(`../support/${name}`, import.meta.url).pathname;

test("an app that boots while the one before it still replicates waits, and begins with what that has replicated", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = ({ method }) => (method === "PUT" ? { delayMs: 300 } : undefined);
  const url = replicaUrl(proxy.port, "overlap/boot.db");
  const { config } = setUp(url);
  await writeRows(config.dbpath, 30, { after: "kill" });
  const before = startApp({ config, method: "timedReplicate", args: [40] });
  await proxy.nextRequest((request) => request.startsWith("PUT"));
  await config.restore({ ifDbNotExists: true });
  expect((await before.ended).outcome).toEqual({ value: true });
  await writeRows(config.dbpath, 1);
  expect(rowsIn(config.dbpath)).toBe(31);
  expect(await config.timedReplicate(40)).toBe(true);
  expect(rowsIn(await setUp(url).config.restore())).toBe(31);
});

test("a boot that waits for such a replication ends at its own deadline, and says so", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = () => "stall";
  const { config } = setUp(replicaUrl(proxy.port, "overlap/stall.db"));
  await writeRows(config.dbpath, 30, { after: "kill" });
  const before = startApp({ config, method: "timedReplicate", args: [60] });
  await proxy.nextRequest(() => true);
  await expect(config.restore({ ifDbNotExists: true, timeoutSeconds: 0.5 })).rejects.toMatchObject({
    reason: "timeout",
    message: expect.stringContaining(
      "another call, perhaps in another process, was replicating or deleting it",
    ),
  });
  before.kill();
  await before.ended;
  await config.restore({ ifDbNotExists: true });
  expect(rowsIn(config.dbpath)).toBe(30);
});

/** For `at-removal.mjs`: the other process, and a file for what it says. */
const atRemoval = (...args: string[]) => ({
  AT_REMOVAL: JSON.stringify(args),
  AT_REMOVAL_LOG: join(tempFolder(), "log"),
});

describe("between the moment in which a database is moved away to be removed, and the last look at it,", () => {
  test("a restore of another process takes nothing away", async () => {
    const url = replicaUrl(s3.port, "overlap/restore.db");
    const { config } = setUp(url);
    // What was committed is in the -wal, and stays there.
    await writeRows(config.dbpath, 30, { after: "kill" });
    const restore = callOf({
      config,
      method: "restore",
      args: [{ ifDbNotExists: true, ifReplicaExists: true }],
    });
    const app = startApp({
      config,
      method: "timedReplicate",
      args: [40],
      imports: ["./at-removal.mjs"],
      env: atRemoval(script("app.mjs"), restore),
    });
    const { outcome, stderr } = await app.ended;
    expect(outcome, stderr).toEqual({ value: true });
    expect(rowsIn(await setUp(url).config.restore())).toBe(30);
  });

  test("another file that comes into its place keeps both, and is not uploaded", async () => {
    const url = replicaUrl(s3.port, "overlap/new.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 30);
    const app = startApp({
      config,
      method: "replicateOnce",
      args: [{ timeoutSeconds: 40 }],
      imports: ["./at-removal.mjs"],
      env: atRemoval(script("writer.mjs"), config.dbpath, '{"rows":1}'),
    });
    const { outcome, stderr } = await app.ended;
    const both = expect.stringContaining("There are two databases");
    expect(outcome, stderr).toMatchObject({ value: { ok: false, reason: "failed", message: both } });
    // Nor do the next calls choose one.
    await expect(config.restore({ ifDbNotExists: true })).rejects.toMatchObject({ message: both });
    await expect(config.timedReplicate(40)).rejects.toMatchObject({ message: both });
    expect(rowsIn(config.dbpath)).toBe(1);
    expect(existsSync(`${config.dbpath}.removing`)).toBe(true);
    expect(rowsIn(await setUp(url).config.restore())).toBe(30);
  });

  test("a commit, and a file system that then refuses to put it back: the next call does", async () => {
    const url = replicaUrl(s3.port, "overlap/refused.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 30, { after: "kill" });
    const app = startApp({
      config,
      method: "replicateOnce",
      args: [{ timeoutSeconds: 40 }],
      imports: ["./last-moment.mjs", "./held-fast.mjs"],
      env: lateWriter(config.dbpath, { rows: 1 }),
    });
    const { outcome, stderr } = await app.ended;
    const message = expect.stringMatching(/could be neither deleted nor put back.*EIO/s);
    expect(outcome, stderr).toMatchObject({ value: { ok: false, reason: "failed", message } });
    await config.restore({ ifDbNotExists: true });
    expect(rowsIn(config.dbpath)).toBe(31);
  });
});

test("three processes have the lock of a database one at a time", async () => {
  const dbpath = join(tempFolder(), "a.db");
  const met = await Promise.all(
    [1, 2, 3].map(async () => {
      const args = [script("lock-race.mjs"), dbpath, "200"];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      let text = "";
      child.stdout.on("data", (chunk) => {
        text += chunk;
      });
      await once(child, "close");
      return JSON.parse(text) as number;
    }),
  );
  expect(met).toEqual([0, 0, 0]);
});

test.skipIf(IS_0_3)(
  "what is committed around litestream's own checkpoint is in the replica: 0.5.10 never read it",
  async () => {
    const url = replicaUrl(s3.port, "overlap/checkpoint.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 300, { after: "kill", bytes: 9000 });
    const old = new Date(Date.now() - 120_000); // then it checkpoints
    utimesSync(config.dbpath, old, old);
    const writer = spawn(process.execPath, [script("checkpoint-race.mjs"), config.dbpath], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const gone = once(writer, "exit");
    await once(writer.stdout, "data");
    expect(await config.timedReplicate(50)).toBe(true);
    await gone;
    expect(rowsIn(await setUp(url).config.restore())).toBe(302);
  },
);
