import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { DatabaseNotFoundError } from "../../src/index.ts";
import { startApp } from "../support/app.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

test("concurrent calls for one database share a run, also through two objects", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  const url = replicaUrl(proxy.port, "concurrency/shared.db");
  const { config, files } = setUp(url);
  const { config: other } = setUp(url, { folder: config.folder });
  await writeRows(config.dbpath, 30);
  const all = await Promise.all([
    config.timedReplicate(30),
    config.timedReplicate(30),
    other.timedReplicate(20),
  ]);
  expect(all).toEqual([true, true, true]);
  expect(files()).toEqual([]);
  const alone = proxy.requests.length;

  // As many uploads as one call alone makes.
  await config.restore();
  proxy.requests.length = 0;
  await writeRows(config.dbpath, 30);
  expect(await config.timedReplicate(30)).toBe(true);
  const uploads = (requests: string[]) => requests.filter((request) => request.startsWith("PUT")).length;
  expect(uploads(proxy.requests)).toBeLessThanOrEqual(alone);
  expect(rowsIn(await setUp(url).config.restore())).toBe(60);
});

test("a call that joins keeps its own deadline, and goes on when the first call's deadline has passed", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = () => "stall";
  const url = replicaUrl(proxy.port, "concurrency/deadlines.db");
  const { config, files } = setUp(url);
  await writeRows(config.dbpath, 30);
  const first = config.replicateOnce({ timeoutSeconds: 1 });
  const short = config.replicateOnce({ timeoutSeconds: 0.2 });
  const long = config.replicateOnce({ timeoutSeconds: 50 });
  expect(await short).toMatchObject({ ok: false, reason: "timeout" });
  expect((await short).durationMs).toBeLessThan(1000);
  expect(await first).toMatchObject({ ok: false, reason: "timeout" });
  proxy.fault = () => undefined;
  expect(await long).toMatchObject({ ok: true });
  expect(files()).toEqual([]);
  expect(rowsIn(await setUp(url).config.restore())).toBe(30);
});

test("a call that wants to keep the database does not share with one that deletes it", async () => {
  const url = replicaUrl(s3.port, "concurrency/keep.db");
  const { config, files } = setUp(url);
  await writeRows(config.dbpath, 30);
  const keep = config.replicateOnce({ timeoutSeconds: 30, keepLocal: true });
  const remove = config.timedReplicate(30);
  expect(await keep).toMatchObject({ ok: true });
  expect(await remove).toBe(true);
  expect(files()).toEqual([]);

  await config.restore();
  const first = config.timedReplicate(30);
  await expect(config.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).rejects.toBeInstanceOf(
    DatabaseNotFoundError,
  );
  expect(await first).toBe(true);
});

test("different databases at once do not wait for each other's answers", async () => {
  const apps = Array.from({ length: 5 }, (_, i) => setUp(replicaUrl(s3.port, `concurrency/many-${i}.db`)));
  for (const [i, { config }] of apps.entries()) await writeRows(config.dbpath, i + 1);
  expect(await Promise.all(apps.map(({ config }) => config.timedReplicate(40)))).toEqual(
    apps.map(() => true),
  );
  for (const [i, { config }] of apps.entries()) expect(rowsIn(await config.restore())).toBe(i + 1);
});

test("another process's replication is waited for, by its twin and by delete()", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = ({ method }) => (method === "PUT" ? "stall" : undefined);
  const url = replicaUrl(proxy.port, "concurrency/processes.db");
  const { config, log, files } = setUp(url);
  await writeRows(config.dbpath, 30);
  const app = startApp({ config, method: "timedReplicate", args: [50] });
  await proxy.nextRequest((request) => request.startsWith("PUT"));
  proxy.fault = () => undefined;
  proxy.requests.length = 0;
  // Another way to the same folder is no way around.
  const link = join(tempFolder(), "link");
  symlinkSync(config.folder, link);
  expect(await setUp(url, { folder: link }).config.timedReplicate(1)).toBe(false);
  expect(await config.timedReplicate(0.5)).toBe(false);
  expect(log.at(50)).toEqual([
    expect.objectContaining({ reason: "timeout", msg: expect.stringContaining("in another process") }),
  ]);
  expect(proxy.requests).toEqual([]);
  let deleted = false;
  const deletion = config.delete().then(() => {
    deleted = true;
  });
  expect(rowsIn(config.dbpath)).toBe(30);
  expect(deleted).toBe(false);
  app.kill();
  await app.ended;
  await deletion;
  expect(files()).toEqual([]);
});

test("delete() waits for the replication of the same process", async () => {
  const url = replicaUrl(s3.port, "concurrency/delete.db");
  const { config, files } = setUp(url);
  await writeRows(config.dbpath, 30);
  const replicated = config.replicateOnce({ timeoutSeconds: 30, keepLocal: true });
  while (!files().some((name) => name.endsWith("-litestream")))
    await new Promise((done) => setTimeout(done, 1));
  await config.delete();
  expect(await replicated).toMatchObject({ ok: true });
  expect(files()).toEqual([]);
  expect(rowsIn(await setUp(url).config.restore())).toBe(30);
});
