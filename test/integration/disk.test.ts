import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileSystemError, RestoreError } from "../../src/index.ts";
import { readRecords, writeRecord } from "../../src/replica-record.ts";
import { fillDisk, NO_SMALL_DISK } from "../support/disk.ts";
import { afterLitestream, fakeLitestream } from "../support/fake-litestream.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { makeReadOnly, smallDisk } from "../support/small-disk.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

describe.skipIf(NO_SMALL_DISK)(`a full disk${NO_SMALL_DISK ? ` (skipped: ${NO_SMALL_DISK})` : ""}`, () => {
  test("at shutdown: false with the reason, and the database as it was", async () => {
    const { config } = setUp(replicaUrl(s3.port, "disk/full.db"), { folder: smallDisk(2048) });
    await writeRows(config.dbpath, 50, { bytes: 4000, after: "kill" });
    const empty = fillDisk(config.folder);
    const result = await config.replicateOnce({ timeoutSeconds: 3 });
    expect(result).toMatchObject({ ok: false, reason: "failed" });
    expect(result).toMatchObject({
      message: expect.stringMatching(/no space left|disk is full|disk I\/O error/),
    });
    empty();
    expect(rowsIn(config.dbpath)).toBe(50);
    expect(await config.timedReplicate(30)).toBe(true);
  });

  test("what is known of the replica is written into the room that it has: the machine does not become a stranger", () => {
    const dbpath = join(smallDisk(1024), "db.sqlite");
    const known = { place: "0.5 aws s3://b/x.db", position: { "": "07" } };
    writeRecord(dbpath, { ...known, uploading: false }, []);
    const empty = fillDisk(dirname(dbpath));
    writeRecord(dbpath, { ...known, uploading: true }, []);
    expect(readRecords(dbpath)).toEqual([{ ...known, uploading: true }]);
    writeRecord(dbpath, { ...known, uploading: false }, []);
    expect(readRecords(dbpath)).toEqual([{ ...known, uploading: false }]);
    expect(() => writeRecord(`${dbpath}2`, { ...known, uploading: true }, [])).toThrow(FileSystemError);
    empty();
  });

  test("at boot: rejects with the reason and leaves nothing", async () => {
    const url = replicaUrl(s3.port, "disk/large.db");
    const large = setUp(url);
    await writeRows(large.config.dbpath, 300, { bytes: 10_000 });
    expect(await large.config.timedReplicate(30)).toBe(true);
    const { config, files } = setUp(url, { folder: smallDisk(1024) });
    const error = await config.restore().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RestoreError);
    expect(error).toMatchObject({
      message: expect.stringMatching(/no space left|disk is full|disk I\/O error/),
    });
    expect(files()).toEqual([]);
    expect(processesWith(config.folder)).toEqual([]);
  });
});

describe.skipIf(NO_SMALL_DISK)(
  `a read-only folder${NO_SMALL_DISK ? ` (skipped: ${NO_SMALL_DISK})` : ""}`,
  () => {
    test("at shutdown: false, and the database as it was", async () => {
      const { config, files } = setUp(replicaUrl(s3.port, "disk/read-only.db"), { folder: smallDisk(2048) });
      await writeRows(config.dbpath, 50);
      const before = files();
      makeReadOnly(config.folder);
      const result = await config.replicateOnce({ timeoutSeconds: 3 });
      expect(result).toMatchObject({ ok: false, message: expect.stringContaining(config.folder) });
      expect(files()).toEqual(before);
    });

    test("what is replicated but can't be deleted is no success; the message says what is safe", async () => {
      const url = replicaUrl(s3.port, "disk/kept.db");
      const folder = smallDisk(2048);
      const litestream = fakeLitestream(afterLitestream(`mount -o remount,ro ${folder}`));
      const { config } = setUp(url, { folder }, { litestream });
      await writeRows(config.dbpath, 50);
      expect(
        await setUp(url, { folder }).config.replicateOnce({ timeoutSeconds: 30, keepLocal: true }),
      ).toMatchObject({
        ok: true,
      });
      expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({
        ok: false,
        message: expect.stringMatching(
          /is in the replica .* could not be deleted here.*read-only file system/s,
        ),
      });
      expect(rowsIn(await setUp(url).config.restore())).toBe(50);
    });

    test("at boot: rejects and says why", async () => {
      const { config } = setUp(replicaUrl(s3.port, "disk/boot.db"), { folder: smallDisk(2048) });
      makeReadOnly(config.folder);
      const error = await config.restore({ ifReplicaExists: false }).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(RestoreError);
    });

    test("delete says what it could not remove", async () => {
      const { config } = setUp(replicaUrl(s3.port, "disk/delete.db"), { folder: smallDisk(2048) });
      await writeRows(config.dbpath, 1);
      makeReadOnly(config.folder);
      const error = await config.delete().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(FileSystemError);
      expect(error).toMatchObject({ message: expect.stringMatching(/read-only file system/) });
    });
  },
);
