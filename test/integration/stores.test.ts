import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RestoreError } from "../../src/index.ts";
import { IS_0_3, MUTE } from "../support/litestream.ts";
import { freePort, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

test("a store at an address of its own, with a bucket in the URL's path style", async () => {
  const store = { endpoint: `http://127.0.0.1:${s3.port}`, region: "us-east-1" };
  const { config, files } = setUp("s3://backups/stores/own.db", store);
  expect(await config.restore({ ifReplicaExists: true })).toBe(config.dbpath);
  await writeRows(config.dbpath, 30);
  expect(await config.timedReplicate(30)).toBe(true);
  expect(files()).toEqual([]);
  expect((await s3.keys("stores/own.db")).length).toBeGreaterThan(0);
  expect(rowsIn(await config.restore())).toBe(30);
});

test.skipIf(MUTE)("replicate() to such a store, from its first row on", async () => {
  const { config } = setUp("s3://backups/stores/all-the-time.db", {
    endpoint: `http://127.0.0.1:${s3.port}`,
    region: "us-east-1",
  });
  await writeRows(config.dbpath, 30);
  await using replication = await config.replicate({ startTimeoutSeconds: 50 });
  await writeRows(config.dbpath, 5);
  expect(await replication.stop({ timeoutSeconds: 30, deleteLocal: true })).toMatchObject({ ok: true });
  expect(rowsIn(await config.restore())).toBe(35);
});

test("the address wins over the one that the URL's host stands for", async () => {
  const url = "s3://backups.localhost:1/stores/wins.db";
  const { config } = setUp(url, { endpoint: `http://127.0.0.1:${s3.port}` });
  await writeRows(config.dbpath, 30);
  expect(await config.timedReplicate(30)).toBe(true);
  expect(rowsIn(await config.restore())).toBe(30);
});

test("an address where no store is: rejects, with the reason", async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const { config, files } = setUp("s3://backups/stores/none.db", { endpoint });
  expect(config.endpoint).toBe(endpoint);
  const error = await config.restore({ timeoutSeconds: 3 }).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RestoreError);
  // 0.5 says nothing while it retries.
  expect(IS_0_3 ? ["unreachable"] : ["unreachable", "timeout"]).toContain((error as RestoreError).reason);
  expect(files()).toEqual([]);
});

test("no configuration is left, neither by a call nor by one that was killed before", async () => {
  const { config } = setUp("s3://backups/stores/left.db", { endpoint: `http://127.0.0.1:${s3.port}` });
  await writeRows(config.dbpath, 30);
  const configurations = () => readdirSync(config.folder).filter((name) => name.includes("-config-"));
  writeFileSync(join(config.folder, "db.sqlite.litestream-config-0123456789abcdef"), "{}");
  writeFileSync(join(config.folder, "other.sqlite.litestream-config-0123456789abcdef"), "{}");
  expect(await config.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).toMatchObject({ ok: true });
  expect(configurations()).toEqual(["other.sqlite.litestream-config-0123456789abcdef"]);
});

test("two calls at once for one database and two stores are two runs", async () => {
  const url = "s3://backups/stores/two.db";
  const here = setUp(url, { endpoint: `http://127.0.0.1:${s3.port}` });
  await writeRows(here.config.dbpath, 30);
  const { folder } = here.config;
  const elsewhere = setUp(url, { folder, endpoint: `http://127.0.0.1:${await freePort()}` });
  const [first, second] = await Promise.all([
    here.config.replicateOnce({ timeoutSeconds: 40, keepLocal: true }),
    elsewhere.config.replicateOnce({ timeoutSeconds: 5, keepLocal: true }),
  ]);
  expect(first).toMatchObject({ ok: true });
  expect(second).toMatchObject({ ok: false });
});

test("a region that is not the store's: rejects, and says so", async ({ skip }) => {
  skip(!s3.checksSignatures, "fauxqs accepts any region: runs on versitygw in the matrix");
  const store = { endpoint: `http://127.0.0.1:${s3.port}`, region: "eu-central-9" };
  const { config } = setUp("s3://backups/stores/elsewhere.db", store);
  const said = { reason: "bucket", message: expect.stringMatching(/eu-central-9.*Check .*REPLICA_REGION/s) };
  await expect(config.restore({ timeoutSeconds: 20 })).rejects.toMatchObject(said);
  await writeRows(config.dbpath, 5);
  expect(await config.replicateOnce({ timeoutSeconds: 20 })).toMatchObject({ ok: false, ...said });
  if (MUTE) return; // which refuses replicate()
  await expect(config.replicate({ startTimeoutSeconds: 20 })).rejects.toMatchObject(said);
});
