import { readlinkSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { fingerprint, lockDatabase, sameFingerprint } from "../../src/database-files.ts";
import { deadPid, tempFolder } from "../support/setup.ts";

let dbpath: string;
beforeEach(() => {
  dbpath = join(tempFolder(), "a.db");
  writeFileSync(dbpath, "a database");
});

describe("the fingerprint", () => {
  const wal = (seconds: number) => {
    writeFileSync(`${dbpath}-wal`, "a WAL");
    utimesSync(`${dbpath}-wal`, seconds, seconds);
  };
  const now = () => Math.floor(Date.now() / 1000);

  test("without a -wal proves nothing", () => {
    expect(fingerprint(dbpath)).toBeUndefined();
    expect(sameFingerprint(undefined, undefined)).toBe(false);
  });

  test("with a young time in whole seconds proves nothing: a second commit might not show", () => {
    wal(now());
    expect(statSync(`${dbpath}-wal`, { bigint: true }).mtimeNs % 1_000_000_000n).toBe(0n);
    expect(fingerprint(dbpath)).toBeUndefined();
  });

  test("with an older time in whole seconds, or a fraction, does", () => {
    wal(now() - 3);
    expect(fingerprint(dbpath)).toBeDefined();
    wal(now() - 0.5);
    expect(fingerprint(dbpath)).toBeDefined();
  });
});

describe("the lock", () => {
  const lock = () => join(dbpath, "..", ".a.db-litestream-s3.lock");

  test("is held until it is released", () => {
    const release = lockDatabase(dbpath);
    expect(release).toBeDefined();
    expect(lockDatabase(dbpath)).toBeUndefined();
    release?.();
    const again = lockDatabase(dbpath);
    expect(again).toBeDefined();
    again?.();
  });

  test("of a process that is gone is none", () => {
    symlinkSync(`${deadPid()} 123`, lock());
    expect(lockDatabase(dbpath)).toBeDefined();
    expect(readlinkSync(lock())).toMatch(new RegExp(`^${process.pid} `));
  });

  test("of an earlier process with the same id is none", () => {
    symlinkSync(`${process.pid} 1`, lock());
    expect(lockDatabase(dbpath)).toBeDefined();
  });

  test("of a process that lives is one", () => {
    lockDatabase(dbpath);
    const owner = readlinkSync(lock());
    expect(lockDatabase(dbpath)).toBeUndefined();
    expect(readlinkSync(lock())).toBe(owner);
  });
});
