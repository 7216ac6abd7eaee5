import { existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { DatabaseExistsError, RestoreError } from "../../src/index.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { deadPid, processesWith } from "../support/processes.ts";
import { freePort, replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { overtimeOf, RECORD, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, startWriter, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
  const { config } = setUp(replicaUrl(s3.port, BACKUP), { folder: tempFolder("hook") });
  await writeRows(config.dbpath, 200, { bytes: 2000 });
  expect(await config.timedReplicate(30)).toBe(true);
});
afterAll(() => s3.stop());

const BACKUP = "restore/backup.db";
const setUpBackup = () => setUp(replicaUrl(s3.port, BACKUP));
const setUpEmpty = () => setUp(replicaUrl(s3.port, "restore/nothing.db"));

/** The error, or a failure of the test. */
async function rejection(promise: Promise<unknown>): Promise<RestoreError> {
  const error = await promise.then(
    () => expect.unreachable("it resolved"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RestoreError);
  return error as RestoreError;
}

test("puts the database in place and resolves to its path; what else is left is what it knows of the replica", async () => {
  const { config, files } = setUpBackup();
  expect(await config.restore()).toBe(join(config.folder, "db.sqlite"));
  expect(files()).toEqual([RECORD, "db.sqlite"]);
  expect(rowsIn(config.dbpath)).toBe(200);
});

describe("an existing database", () => {
  test("is never overwritten", async () => {
    const { config, files } = setUpBackup();
    writeFileSync(config.dbpath, "mine");
    writeFileSync(`${config.dbpath}-wal`, "mine too");
    const error = await config.restore().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DatabaseExistsError);
    expect(error).toMatchObject({ code: "DATABASE_EXISTS", message: expect.stringContaining(config.dbpath) });
    expect(readFileSync(config.dbpath, "utf8")).toBe("mine");
    expect(files()).toEqual(["db.sqlite", "db.sqlite-wal"]);
  });

  test("is kept, with everything beside it, by ifDbNotExists, also where the store is down", async () => {
    const { config, files } = setUp(replicaUrl(await freePort(), BACKUP));
    await writeRows(config.dbpath, 10, { after: "kill" });
    const before = files();
    expect(await config.restore({ ifDbNotExists: true })).toBe(config.dbpath);
    expect(files()).toEqual(before);
    expect(rowsIn(config.dbpath)).toBe(10);
  });

  test("that appears during the restore wins", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    for (const ifDbNotExists of [false, true]) {
      const { config, files } = setUp(replicaUrl(proxy.port, BACKUP));
      let arrived = false;
      proxy.fault = () => {
        if (!arrived) writeFileSync(config.dbpath, "mine");
        arrived = true;
        return undefined;
      };
      const outcome = await config.restore({ ifDbNotExists }).catch((reason: unknown) => reason);
      if (ifDbNotExists) expect(outcome).toMatchObject({ reason: "foreign-backup" });
      else expect(outcome).toBeInstanceOf(DatabaseExistsError);
      expect(readFileSync(config.dbpath, "utf8")).toBe("mine");
      expect(files()).toEqual(["db.sqlite"]);
    }
  });
});

describe("a replica without a backup", () => {
  test("rejects", async () => {
    const { config, files } = setUpEmpty();
    const error = await rejection(config.restore());
    expect(error).toMatchObject({ code: "RESTORE_FAILED", reason: "no-backup" });
    expect(error.message).toMatch(/no matching backup/);
    expect(files()).toEqual([]);
  });

  test("is a first boot with ifReplicaExists: it resolves without a database", async () => {
    const { config, files, log } = setUpEmpty();
    expect(await config.restore({ ifReplicaExists: true })).toBe(config.dbpath);
    expect(files()).toEqual([RECORD]);
    const warned = log
      .at(40)
      .some(({ msg }) => msg.includes("0.3 cannot see backups made by litestream 0.5"));
    expect(warned).toBe(IS_0_3);
  });

  test("is not to be confused with a missing bucket", async () => {
    const { config, files } = setUp(replicaUrl(s3.port, BACKUP, "no-such-bucket"));
    const error = await rejection(config.restore({ ifReplicaExists: true, timeoutSeconds: 20 }));
    expect(error.reason).toBe("bucket");
    expect(error.message).toMatch(/NoSuchBucket.*Check that the bucket/s);
    expect(files()).toEqual([]);
  });

  test("is not to be confused with an unreachable store", async () => {
    const { config, files } = setUp(replicaUrl(await freePort(), BACKUP));
    const error = await rejection(config.restore({ ifReplicaExists: true, timeoutSeconds: 3 }));
    // 0.5 says nothing while it retries; two requests in a row tell, where there is the time.
    expect(IS_0_3 ? ["unreachable"] : ["unreachable", "timeout"]).toContain(error.reason);
    expect(files()).toEqual([]);
  });

  test("is not to be confused with refused credentials", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = () => ({ status: 403 });
    const { config, files } = setUp(replicaUrl(proxy.port, "restore/nothing.db"));
    const error = await rejection(config.restore({ ifReplicaExists: true, timeoutSeconds: 20 }));
    expect(error.reason).toBe("credentials");
    expect(files()).toEqual([]);
  });

  test("is not to be confused with a wrong secret", async ({ skip }) => {
    skip(!s3.checksSignatures, "fauxqs accepts any key: runs on versitygw in the matrix");
    const { config, files } = setUp(replicaUrl(s3.port, "restore/nothing.db"), { token: "a wrong secret" });
    const error = await rejection(config.restore({ ifReplicaExists: true, timeoutSeconds: 20 }));
    expect(error.reason).toBe("credentials");
    expect(error.message).toMatch(/SignatureDoesNotMatch.*LITESTREAM_SECRET_ACCESS_KEY/s);
    expect(`${error.message}${error.stack}`).not.toContain("a wrong secret");
    expect(files()).toEqual([]);
  });
});

describe("what an older life has left", () => {
  const LEFTOVERS = ["db.sqlite-wal", "db.sqlite-shm", "db.sqlite-journal"];

  test("goes before the restore: a stale -wal is not replayed into the restored file", async () => {
    const { config, files } = setUpBackup();
    // An older life of the same database, whose main file has gone.
    const older = setUpBackup();
    await writeRows(older.config.dbpath, 77, { after: "kill" });
    for (const suffix of ["-wal", "-shm"]) {
      writeFileSync(config.dbpath + suffix, readFileSync(older.config.dbpath + suffix));
    }
    await config.restore();
    expect(files()).toEqual([RECORD, "db.sqlite"]);
    expect(rowsIn(config.dbpath)).toBe(200);
  });

  test("goes also where the restore fails or finds nothing", async () => {
    for (const ifReplicaExists of [false, true]) {
      const { config, files } = setUpEmpty();
      const abandoned = `db.sqlite.restore-${deadPid()}-0123abcd`;
      for (const name of [...LEFTOVERS, abandoned, `${abandoned}.tmp`, `${abandoned}.tmp-00000000-wal`])
        writeFileSync(join(config.folder, name), "stale");
      writeFileSync(join(config.folder, "other.txt"), "not ours");
      await config.restore({ ifReplicaExists }).catch(() => {});
      expect(files()).toEqual(ifReplicaExists ? [RECORD, "other.txt"] : ["other.txt"]);
    }
  });

  // A history that the lives found: 0.3 keeps each WAL file that it reads under a name of its own.
  test.runIf(IS_0_3)("goes where the restore is cut off while it reads the WAL", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config, files } = setUp(replicaUrl(proxy.port, "restore/wal.db"));
    await writeRows(config.dbpath, 100, { bytes: 1000, after: "kill" });
    expect(await config.timedReplicate(30)).toBe(true);
    const abort = new AbortController();
    const isSegment = (request: string) => /^GET .*\/wal\/[^?]*\.lz4/.test(request);
    proxy.fault = ({ method, url }) => (isSegment(`${method} ${url}`) ? "stall-body" : undefined);
    const restored = rejection(config.restore({ signal: abort.signal }));
    await proxy.nextRequest(isSegment);
    while (!files().some((name) => /-[0-9a-f]{8}-wal$/.test(name)))
      await new Promise((done) => setTimeout(done, 5));
    abort.abort();
    expect((await restored).reason).toBe("aborted");
    expect(files()).toEqual([]);
  });

  test("a folder of litestream's does not shadow the restored file", async () => {
    const url = replicaUrl(s3.port, "restore/shadow.db");
    const first = setUp(url);
    await writeRows(first.config.dbpath, 10);
    await first.config.replicateOnce({ timeoutSeconds: 20, keepLocal: true });
    const second = setUp(url);
    await second.config.restore();
    await writeRows(second.config.dbpath, 10);
    expect(await second.config.timedReplicate(20)).toBe(true);

    // The first machine comes back without its database, but with litestream's folder.
    await first.config.delete();
    await first.config.restore();
    expect(first.files()).toEqual([RECORD, "db.sqlite"]);
    await writeRows(first.config.dbpath, 10);
    expect(await first.config.timedReplicate(20)).toBe(true);
    const third = setUp(url);
    expect(rowsIn(await third.config.restore())).toBe(30);
  });
});

describe("deadline and abort", () => {
  test.each(["stall", "stall-body"] as const)(
    "a store that does %s: rejects in time, no process, no file",
    async (fault) => {
      const proxy = await startFaultProxy(s3.port);
      onTestFinished(() => proxy.stop());
      proxy.fault = ({ url }) => (fault === "stall" || !url?.includes("list-type") ? fault : undefined);
      const { config, files } = setUp(replicaUrl(proxy.port, BACKUP));
      const { result: error, overtimeMs } = await overtimeOf(1.5, () =>
        rejection(config.restore({ timeoutSeconds: 1.5 })),
      );
      expect(overtimeMs).toBeLessThan(250);
      expect(error).toMatchObject({ reason: "timeout", message: expect.stringContaining("1.5 s") });
      expect(processesWith(config.folder)).toEqual([]);
      expect(files()).toEqual([]);
    },
  );

  test("an abort ends it at once", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = () => "stall";
    const { config, files } = setUp(replicaUrl(proxy.port, BACKUP));
    const abort = new AbortController();
    const restored = rejection(config.restore({ signal: abort.signal }));
    await proxy.nextRequest(() => true);
    abort.abort();
    expect((await restored).reason).toBe("aborted");
    expect(processesWith(config.folder)).toEqual([]);
    expect(files()).toEqual([]);
    await expect(config.restore({ signal: abort.signal })).rejects.toMatchObject({ reason: "aborted" });
  });
});

test("two restores at once: one database, complete, and both callers have their answer", async () => {
  const { config, files } = setUpBackup();
  const both = await Promise.allSettled([config.restore(), config.restore()]);
  expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const lost = both.find(({ status }) => status === "rejected") as PromiseRejectedResult;
  expect(lost.reason).toBeInstanceOf(DatabaseExistsError);
  expect(files()).toEqual([RECORD, "db.sqlite"]);
  expect(rowsIn(config.dbpath)).toBe(200);

  const other = setUpBackup();
  const options = { ifDbNotExists: true };
  await Promise.all([
    other.config.restore(options),
    other.config.restore(options),
    other.config.restore(options),
  ]);
  expect(other.files()).toEqual([RECORD, "db.sqlite"]);
});

test("the restored database is a database to go on with", async () => {
  const { config } = setUpBackup();
  await config.restore();
  const writer = await startWriter(config.dbpath, { rows: 5 });
  expect(writer.acked).toBe(205);
  expect(existsSync(config.dbpath)).toBe(true);
});

test("what is in the database's place and no plain file is no existing database", async () => {
  const { config } = setUp(replicaUrl(s3.port, "restore/other.db"));
  symlinkSync("nowhere", config.dbpath);
  const options = { ifDbNotExists: true, ifReplicaExists: true };
  const error = await config.restore(options).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RestoreError);
  expect(error).toMatchObject({
    reason: "not-a-database",
    message: expect.stringContaining("symbolic link"),
  });
});

test("an empty database is kept, with a warning", async () => {
  const { config, log, files } = setUp(replicaUrl(s3.port, "restore/empty.db"));
  writeFileSync(config.dbpath, "");
  await config.restore({ ifDbNotExists: true });
  expect(files()).toEqual(["db.sqlite"]);
  expect(log.at(40)).toEqual([expect.objectContaining({ msg: expect.stringContaining("is empty") })]);
});
