import { copyFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { placeOf } from "../../src/replica-place.ts";
import { writeRecord } from "../../src/replica-record.ts";
import { startApp } from "../support/app.ts";
import { until } from "../support/continuous.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { RECORD, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

// A database that came neither from the replica nor went there replaces no backup.

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const FOREIGN = {
  reason: "foreign-backup",
  message: expect.stringMatching(
    /holds a backup \(at 2\d{3}-.*Z\), and this machine has neither restored.*REPLICA_URL of its own.*delete\(\) and restore\(\).*takeOver: true/,
  ),
};

/** A replica with a backup of 10 rows, and a database of 3 that has nothing to do with it. */
async function stranger() {
  paths += 1;
  const url = replicaUrl(s3.port, `foreign/${paths}.db`);
  const owner = setUp(url);
  await writeRows(owner.config.dbpath, 10);
  expect(await owner.config.timedReplicate(30)).toBe(true);
  const own = setUp(url);
  await writeRows(own.config.dbpath, 3);
  const rowsInReplica = async () => rowsIn(await setUp(url).config.restore());
  return { url, ...own, rowsInReplica };
}

describe("a database that did not come from the backup does not replace it", () => {
  test("the app has forgotten its restore(): no call goes ahead, and the database stays", async () => {
    const { config, log, files, rowsInReplica } = await stranger();
    const before = files();
    expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ ok: false, ...FOREIGN });
    expect(await config.timedReplicate(30)).toBe(false);
    expect(log.at(50)).toMatchObject([FOREIGN.reason].map((reason) => ({ reason })));
    if (!MUTE) await expect(config.replicate({ startTimeoutSeconds: 50 })).rejects.toMatchObject(FOREIGN);
    expect(files()).toEqual(before);
    expect(rowsIn(config.dbpath)).toBe(3);
    expect(await rowsInReplica()).toBe(10);
  });

  test("it was there before the boot, as in an image: the boot says so", async () => {
    const { config, rowsInReplica } = await stranger();
    await expect(
      config.restore({ ifDbNotExists: true, ifReplicaExists: true, timeoutSeconds: 30 }),
    ).rejects.toMatchObject({ code: "RESTORE_FAILED", ...FOREIGN });
    expect(rowsIn(config.dbpath)).toBe(3);
    expect(await rowsInReplica()).toBe(10);
  });

  test("it belongs to another replica, as with a wrong REPLICA_URL: the message names that", async () => {
    const { url, config, rowsInReplica } = await stranger();
    const right = setUp(replicaUrl(s3.port, "foreign/right.db"), { folder: config.folder });
    expect(await right.config.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).toMatchObject({
      ok: true,
    });
    const named = {
      ...FOREIGN,
      message: expect.stringMatching(/another replica \(.*\/foreign\/right\.db\)/),
    };
    const wrong = setUp(url, { folder: config.folder }).config;
    await expect(wrong.restore({ ifDbNotExists: true })).rejects.toMatchObject(named);
    expect(await wrong.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ ok: false, ...named });
    expect(await rowsInReplica()).toBe(10);
    expect(await right.config.timedReplicate(30)).toBe(true);
  });
});

describe("takeOver goes ahead, with a warning", () => {
  const warned = { msg: expect.stringMatching(/holds a backup .*: taking over$/) };

  test("in timedReplicate", async () => {
    const { config, log, files, rowsInReplica } = await stranger();
    expect(await config.timedReplicate(30, { takeOver: true })).toBe(true);
    expect(log.at(40)).toMatchObject([warned]);
    expect(files()).toEqual([]);
    expect(await rowsInReplica()).toBe(3);
  });

  test("in restore: the next shutdown is right by itself", async () => {
    const { config, log, files, rowsInReplica } = await stranger();
    await config.restore({ ifDbNotExists: true, takeOver: true });
    expect(log.at(40)).toMatchObject([warned]);
    expect(files()).toContain(RECORD);
    await config.restore({ ifDbNotExists: true });
    await writeRows(config.dbpath, 1);
    expect(await config.timedReplicate(30)).toBe(true);
    expect(await rowsInReplica()).toBe(4);
  });

  test.skipIf(MUTE)("in replicate(): also its stop() is right by itself", async () => {
    const { config, rowsInReplica } = await stranger();
    const replication = await config.replicate({ startTimeoutSeconds: 50, takeOver: true });
    onTestFinished(async () => void (await config.delete()));
    expect(await rowsInReplica()).toBe(3);
    await writeRows(config.dbpath, 1);
    expect(await replication.stop({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
    expect(await rowsInReplica()).toBe(4);
  });
});

describe("what is this machine's own is no stranger", () => {
  test("its first publication, of which it has never heard that it arrived", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const path = "foreign/unheard.db";
    const { config } = setUp(replicaUrl(proxy.port, path));
    await writeRows(config.dbpath, 3);
    const isMore = (request: string) => request.startsWith("PUT ") && !request.includes("/snapshots/");
    proxy.fault = ({ method, url }) => (isMore(`${method} ${url}`) ? "drop-response" : undefined);
    const app = startApp({ config, method: "timedReplicate", args: [60] });
    await until(async () => (await s3.keys(path)).some((key) => !key.includes("/snapshots/")));
    app.kill();
    await app.ended;
    proxy.fault = () => undefined;
    await config.restore({ ifDbNotExists: true, ifReplicaExists: true });
    expect(rowsIn(config.dbpath)).toBe(3);
    expect(await config.timedReplicate(30)).toBe(true);
  });

  test.skipIf(!IS_0_3)(
    "a disk that goes from litestream 0.5 back to 0.3, which says that the old backup is replaced",
    async () => {
      const { config, log, rowsInReplica } = await stranger();
      // As 0.5 has written it down, which sees no backup of 0.3.
      const known = { place: placeOf(config, "0.5"), position: {}, uploading: false };
      writeRecord(config.dbpath, known, []);
      expect(await config.timedReplicate(30)).toBe(true);
      expect(log.at(40).map(({ msg }) => msg)).toContainEqual(expect.stringMatching(/it is replaced$/));
      expect(await rowsInReplica()).toBe(3);
    },
  );

  test("a copy of its disk", async () => {
    const { url, config } = await stranger();
    await config.delete();
    await config.restore();
    const copy = setUp(url);
    for (const name of ["db.sqlite", RECORD])
      copyFileSync(`${config.folder}/${name}`, `${copy.config.folder}/${name}`);
    await copy.config.restore({ ifDbNotExists: true });
    await writeRows(copy.config.dbpath, 1);
    expect(await copy.config.timedReplicate(30)).toBe(true);
  });
});
