import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import {
  fingerprint,
  lockDatabase,
  recoverDatabase,
  removeDatabase,
  sameFingerprint,
} from "../../src/database-files.ts";
import { deadPid } from "../support/processes.ts";
import { tempFolder } from "../support/setup.ts";

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

describe("the removal", () => {
  const files = () => readdirSync(dirname(dbpath)).sort();

  beforeEach(() => {
    writeFileSync(`${dbpath}-wal`, "a WAL");
    mkdirSync(join(dbpath, "..", ".a.db-litestream", "ltx"), { recursive: true });
    writeFileSync(join(dbpath, "..", ".a.db-litestream", "ltx", "1"), "an object");
  });

  test("takes everything where nothing has changed since the proof", () => {
    expect(removeDatabase(dbpath, fingerprint(dbpath))).toBe(true);
    expect(files()).toEqual([]);
  });

  test("takes nothing where the -wal has changed since", () => {
    const proven = fingerprint(dbpath);
    writeFileSync(`${dbpath}-wal`, "a longer WAL");
    const before = files();
    expect(removeDatabase(dbpath, proven)).toBe(false);
    expect(files()).toEqual(before);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
  });

  test("that a kill cut short is undone by recovery; a database that is there is left alone", () => {
    renameSync(dbpath, `${dbpath}.removing`);
    recoverDatabase(dbpath);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
    writeFileSync(`${dbpath}.removing`, "an older one");
    recoverDatabase(dbpath);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
    expect(removeDatabase(dbpath)).toBe(true);
    expect(files()).toEqual([]);
  });

  test("succeeds where a kill has left two names of one file", () => {
    linkSync(dbpath, `${dbpath}.removing`);
    expect(removeDatabase(dbpath, fingerprint(dbpath))).toBe(true);
    expect(files()).toEqual([]);
  });

  test("is not undone while another call holds the lock: it is under way there", () => {
    renameSync(dbpath, `${dbpath}.removing`);
    const release = lockDatabase(dbpath);
    recoverDatabase(dbpath);
    expect(existsSync(dbpath)).toBe(false);
    release?.();
    recoverDatabase(dbpath);
    expect(existsSync(dbpath)).toBe(true);
  });
});
