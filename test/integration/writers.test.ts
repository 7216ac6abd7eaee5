import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startApp } from "../support/app.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** Two machines on one replica path, which both have restored a database of 10 rows. */
async function twoMachines() {
  paths += 1;
  const url = replicaUrl(s3.port, `writers/${paths}.db`);
  const first = setUp(url);
  await writeRows(first.config.dbpath, 10);
  expect(await first.config.timedReplicate(30)).toBe(true);
  const [a, b] = [setUp(url), setUp(url)];
  await a.config.restore();
  await b.config.restore();
  const rowsInReplica = async () => rowsIn(await setUp(url).config.restore());
  return { url, a, b, rowsInReplica };
}

/** Of `litestream generations`: by the time at which each began. */
const byStart = (a: string[], b: string[]) => ((a[3] ?? "") < (b[3] ?? "") ? -1 : 1);

describe("another machine has written to the replica", () => {
  test("at the shutdown: nothing is uploaded, and the database stays", async () => {
    const { a, b, rowsInReplica } = await twoMachines();
    await writeRows(b.config.dbpath, 5);
    expect(await b.config.timedReplicate(30)).toBe(true);
    await writeRows(a.config.dbpath, 1);
    const result = await a.config.replicateOnce({ timeoutSeconds: 30 });
    expect(result).toMatchObject({ ok: false, reason: "replica-moved" });
    expect(result).toMatchObject({
      message: expect.stringMatching(
        /another machine has written to the replica \(at 2\d{3}-.*Z\).*takeOver: true/,
      ),
    });
    expect(await a.config.timedReplicate(30)).toBe(false);
    expect(rowsIn(a.config.dbpath)).toBe(11);
    expect(await rowsInReplica()).toBe(15);
  });

  test("takeOver replaces it", async () => {
    const { a, b, rowsInReplica } = await twoMachines();
    await writeRows(b.config.dbpath, 5);
    expect(await b.config.timedReplicate(30)).toBe(true);
    await writeRows(a.config.dbpath, 1);
    expect(await a.config.replicateOnce({ timeoutSeconds: 30, takeOver: true })).toMatchObject({ ok: true });
    expect(a.files()).toEqual([]);
    expect(await rowsInReplica()).toBe(11);

    // The other's rows are still there: as the README says.
    const list = IS_0_3 ? "generations" : "ltx";
    const [stdout] = await a.config.getResultOnTimeout(["litestream", list, a.config.s3], 20);
    const rows = stdout.trimEnd().split("\n").slice(1);
    const other = join(tempFolder(), "other.db");
    // The newest is this machine's, the one before it the other's.
    const older = IS_0_3
      ? [
          "-generation",
          rows
            .map((row) => row.split(/\s+/))
            .sort(byStart)
            .at(-2)?.[1] ?? "",
        ]
      : [
          "-txid",
          rows
            .map((row) => row.split(/\s+/)[1] ?? "")
            .sort()
            .at(-2) ?? "",
        ];
    await a.config.getResultOnTimeout(["litestream", "restore", ...older, "-o", other, a.config.s3], 20);
    expect(rowsIn(other)).toBe(15);
  });

  test("at each of their calls in turn, also where the database is kept", async () => {
    const { a, b, rowsInReplica } = await twoMachines();
    const keep = { timeoutSeconds: 30, keepLocal: true };
    await writeRows(a.config.dbpath, 1);
    expect(await a.config.replicateOnce(keep)).toMatchObject({ ok: true });
    await writeRows(a.config.dbpath, 1);
    expect(await a.config.replicateOnce(keep)).toMatchObject({ ok: true });
    await writeRows(b.config.dbpath, 7);
    expect(await b.config.replicateOnce(keep)).toMatchObject({ reason: "replica-moved" });
    expect(await b.config.replicateOnce({ ...keep, takeOver: true })).toMatchObject({ ok: true });
    expect(await a.config.replicateOnce(keep)).toMatchObject({ reason: "replica-moved" });
    expect(await rowsInReplica()).toBe(17);
  });

  test("at the boot of a machine with an old disk", async () => {
    const { a, b } = await twoMachines();
    await writeRows(b.config.dbpath, 5);
    expect(await b.config.timedReplicate(30)).toBe(true);
    await writeRows(a.config.dbpath, 1);
    await expect(a.config.restore({ ifDbNotExists: true })).rejects.toMatchObject({
      reason: "replica-moved",
      message: expect.stringMatching(/another machine has written.*delete\(\).*takeOver/),
    });
    expect(rowsIn(a.config.dbpath)).toBe(11);
    await a.config.restore({ ifDbNotExists: true, takeOver: true });
    await a.config.restore({ ifDbNotExists: true });
    expect(await a.config.timedReplicate(30)).toBe(true);
    expect(rowsIn(await a.config.restore())).toBe(11);
  });

  test("under the number that a call which was cut off had given to its own upload", async () => {
    const { url, a, b, rowsInReplica } = await twoMachines();
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config } = setUp(url.replace(`:${s3.port}`, `:${proxy.port}`));
    await config.restore();
    await writeRows(config.dbpath, 200, { bytes: 1000 });
    proxy.fault = ({ method }) => (method === "PUT" ? "stall" : undefined);
    expect(await config.replicateOnce({ timeoutSeconds: 3 })).toMatchObject({ ok: false });
    proxy.fault = () => undefined;
    await writeRows(b.config.dbpath, 5);
    expect(await b.config.timedReplicate(30)).toBe(true);
    expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ reason: "replica-moved" });
    expect(rowsIn(config.dbpath)).toBe(210);
    expect(await rowsInReplica()).toBe(15);
    // The one that has uploaded nothing and restored before it is told as well.
    expect(await a.config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ reason: "replica-moved" });
  });

  test("two machines that both began with an empty replica", async () => {
    const url = replicaUrl(s3.port, "writers/first.db");
    const [a, b] = [setUp(url), setUp(url)];
    for (const { config } of [a, b]) {
      await config.restore({ ifReplicaExists: true });
      await writeRows(config.dbpath, 3);
    }
    expect(await a.config.timedReplicate(30)).toBe(true);
    expect(await b.config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ reason: "replica-moved" });
    expect(rowsIn(b.config.dbpath)).toBe(3);
  });
});

describe("a machine does not accuse itself", () => {
  test("of what it uploaded in a call that was cut off, or whose process was killed", async () => {
    const { url } = await twoMachines();
    const path = `writers/${paths}.db`;
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config } = setUp(url.replace(`:${s3.port}`, `:${proxy.port}`));
    await config.restore();
    for (const end of ["deadline", "kill"]) {
      await writeRows(config.dbpath, 3);
      const stored = async () => (await s3.keys(path)).filter((key) => !key.includes("/snapshots/")).length;
      const before = await stored();
      // What it uploads arrives; litestream never hears of it.
      proxy.fault = ({ method, url = "" }) =>
        method === "PUT" && !url.includes("/snapshots/") ? "drop-response" : undefined;
      if (end === "deadline") {
        await config.replicateOnce({ timeoutSeconds: 4, keepLocal: true });
      } else {
        const app = startApp({ config, method: "timedReplicate", args: [60] });
        while ((await stored()) === before) await new Promise((done) => setTimeout(done, 20));
        app.kill();
        expect(await app.ended).toMatchObject({ signal: "SIGKILL" });
      }
      expect(await stored()).toBeGreaterThan(before);
      proxy.fault = () => undefined;
      await config.restore({ ifDbNotExists: true });
      expect(await config.replicateOnce({ timeoutSeconds: 40, keepLocal: true })).toMatchObject({ ok: true });
    }
    expect(await config.timedReplicate(30)).toBe(true);
  });

  test("with a record of another replica, on one that holds nothing", async () => {
    const { url, a } = await twoMachines();
    const elsewhere = setUp(`${url}-elsewhere`, { folder: a.config.folder });
    await elsewhere.config.restore({ ifDbNotExists: true });
    expect(await elsewhere.config.timedReplicate(30)).toBe(true);
    expect(readdirSync(a.config.folder)).toEqual([]);
  });
});

test("a replica that can't be looked at: a boot with its own database warns and goes on, an upload waits", async () => {
  const { url } = await twoMachines();
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  const { config, log } = setUp(url.replace(`:${s3.port}`, `:${proxy.port}`));
  await config.restore();
  proxy.fault = () => ({ status: 403 });
  await config.restore({ ifDbNotExists: true });
  expect(log.at(40).map(({ msg }) => msg)).toContainEqual(expect.stringContaining("can't be looked at"));
  await writeRows(config.dbpath, 1);
  expect(await config.replicateOnce({ timeoutSeconds: 5 })).toMatchObject({
    ok: false,
    reason: "credentials",
  });
  expect(rowsIn(config.dbpath)).toBe(11);
});
