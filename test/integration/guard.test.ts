import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { FileSystemError } from "../../src/index.ts";
import { until } from "../support/continuous.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { RECORD, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

// What a machine knows of the replica must not be lost in silence: its place may be spelled otherwise, and its record may be
// damaged, or not to be read.

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** A machine that has restored a database of 10 rows, which another one has replaced by 15 since. */
async function overtaken(port = s3.port) {
  paths += 1;
  const path = `guard/${paths}.db`;
  const [first, other] = [setUp(replicaUrl(s3.port, path)), setUp(replicaUrl(s3.port, path))];
  await writeRows(first.config.dbpath, 10);
  expect(await first.config.timedReplicate(30)).toBe(true);
  const own = setUp(replicaUrl(port, path));
  await own.config.restore();
  await other.config.restore();
  await writeRows(other.config.dbpath, 5);
  expect(await other.config.timedReplicate(30)).toBe(true);
  await writeRows(own.config.dbpath, 1);
  const rowsInReplica = async () => rowsIn(await setUp(replicaUrl(s3.port, path)).config.restore());
  return { ...own, path, record: join(own.config.folder, RECORD), rowsInReplica };
}

describe("a record that can't be read", () => {
  test("is no reason to take the machine for one that was never here: each call rejects, and says which file it is", async () => {
    const { config, record, rowsInReplica } = await overtaken();
    rmSync(record);
    mkdirSync(record);
    const calls = [
      config.restore({ ifDbNotExists: true }),
      config.restore({ ifDbNotExists: true, takeOver: true }),
      config.timedReplicate(30),
      config.replicateOnce({ timeoutSeconds: 30, takeOver: true }),
      ...(MUTE ? [] : [config.replicate({ startTimeoutSeconds: 30 })]),
    ];
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({ status: "rejected", reason: expect.any(FileSystemError) });
      expect(outcome).toMatchObject({
        reason: { message: expect.stringMatching(/-litestream-s3: EISDIR.*plain file: move away/) },
      });
    }
    expect(rowsIn(config.dbpath)).toBe(11);
    expect(await rowsInReplica()).toBe(15);
  });

  test.each(["", '{"replica":'])("damaged (%j): the backup stays until takeOver", async (text) => {
    const { config, record, rowsInReplica } = await overtaken();
    writeFileSync(record, text);
    const words = {
      reason: "foreign-backup",
      message: expect.stringMatching(/holds a backup \(at 2.*-litestream-s3 is damaged.*takeOver/),
    };
    await expect(config.restore({ ifDbNotExists: true })).rejects.toMatchObject(words);
    expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ ok: false, ...words });
    expect(await rowsInReplica()).toBe(15);
    expect(await config.timedReplicate(30, { takeOver: true })).toBe(true);
    expect(await rowsInReplica()).toBe(11);
  });

  test("damaged, beside a replica that holds nothing: it is replaced by a new one", async () => {
    const { config, files } = setUp(replicaUrl(s3.port, "guard/empty.db"));
    await writeRows(config.dbpath, 3);
    writeFileSync(join(config.folder, RECORD), "");
    await config.restore({ ifDbNotExists: true });
    const keep = { timeoutSeconds: 30, keepLocal: true };
    expect(await config.replicateOnce(keep)).toMatchObject({ ok: true });
    await config.restore({ ifDbNotExists: true });
    expect(await config.timedReplicate(30)).toBe(true);
    expect(files()).toEqual([]);
  });
});

describe("the place of a replica", () => {
  test("is the same in another spelling: what another machine has written is noticed, and nobody is a stranger", async () => {
    const { config, path, rowsInReplica } = await overtaken();
    const url = `s3://backups//${path.replace("guard", "g%75ard")}/`;
    const settings = { folder: config.folder, endpoint: `http://127.0.0.1:${s3.port}/` };
    const { config: respelled } = setUp(url, settings);
    const moved = { reason: "replica-moved" };
    await expect(respelled.restore({ ifDbNotExists: true })).rejects.toMatchObject(moved);
    expect(await respelled.replicateOnce({ timeoutSeconds: 30 })).toMatchObject(moved);
    expect(await rowsInReplica()).toBe(15);

    await respelled.delete();
    await config.restore();
    await writeRows(config.dbpath, 1);
    await respelled.restore({ ifDbNotExists: true });
    expect(await respelled.timedReplicate(30)).toBe(true);
    expect(await rowsInReplica()).toBe(16);
  });

  test("is remembered beside others: a machine that comes back to one is no stranger, and is told what was written there", async () => {
    const here = setUp(replicaUrl(s3.port, "guard/here.db"));
    const there = setUp(replicaUrl(s3.port, "guard/there.db"), { folder: here.config.folder });
    const keep = { timeoutSeconds: 30, keepLocal: true };
    await writeRows(here.config.dbpath, 2);
    for (const { config } of [here, there, here, there]) {
      await config.restore({ ifDbNotExists: true });
      expect(await config.replicateOnce(keep)).toMatchObject({ ok: true });
      // So that what litestream keeps of the one has another size than what the other has under the same name.
      await writeRows(config.dbpath, 1, { bytes: 9000 });
    }
    const other = setUp(here.config.s3);
    await other.config.restore();
    await writeRows(other.config.dbpath, 10);
    expect(await other.config.timedReplicate(30)).toBe(true);
    expect(await here.config.replicateOnce(keep)).toMatchObject({ reason: "replica-moved" });
    expect(await there.config.timedReplicate(30)).toBe(true);
  });
});

test("while a boot takes over, another call for the database waits: it has the lock until all is in order", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  const { config, rowsInReplica } = await overtaken(proxy.port);
  const second = setUp(config.s3, { folder: config.folder });
  let goOn = () => {};
  const held = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  onTestFinished(() => goOn());
  const asked = proxy.nextRequest(() => true);
  proxy.fault = () => ({ after: held });
  const boot = config.restore({ ifDbNotExists: true, takeOver: true });
  await asked;
  const shutdown = second.config.timedReplicate(50);
  const waits = () => second.log.lines.some(({ msg }) => msg.includes("has this database: waiting"));
  await until(() => waits());
  proxy.fault = () => undefined;
  goOn();
  await boot;
  expect(await shutdown).toBe(true);
  expect(await rowsInReplica()).toBe(11);
});
