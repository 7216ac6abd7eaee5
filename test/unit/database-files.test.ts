import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import {
  fingerprint,
  recoverDatabase,
  removeDatabase,
  removeLeftovers,
  sameFingerprint,
  walSalt,
} from "../../src/database-files.ts";
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

describe("the salt of the -wal", () => {
  const header = (magic: number, salt: number) => {
    const bytes = Buffer.alloc(32);
    bytes.writeUInt32BE(magic, 0);
    bytes.writeUInt32BE(salt, 16);
    return bytes;
  };

  test.each([
    [0xfedcba98, "of either byte order", header(0x377f0682, 0xfedcba98)],
    [5, "of either byte order", header(0x377f0683, 5)],
    [undefined, "of another file", header(0x377f0684, 5)],
    [undefined, "of an empty file", Buffer.alloc(0)],
    [undefined, "of half a header", header(0x377f0682, 5).subarray(0, 19)],
  ])("%s: %s", (salt, _, bytes) => {
    writeFileSync(`${dbpath}-wal`, bytes);
    expect(walSalt(dbpath)).toBe(salt);
  });

  test("is none without a -wal", () => {
    expect(walSalt(dbpath)).toBeUndefined();
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

  test("takes nothing while the database is in use, of which it asks when nobody can open it any more", () => {
    const before = files();
    const isInUse = () => {
      expect(files()).toEqual(before.map((name) => (name === "a.db" ? "a.db.removing" : name)).sort());
      // Whoever commits and closes after this answer is still seen.
      writeFileSync(`${dbpath}-wal`, "a longer WAL");
      return false;
    };
    expect(removeDatabase(dbpath, fingerprint(dbpath), isInUse)).toBe(false);
    expect(removeDatabase(dbpath, fingerprint(dbpath), () => true)).toBe(false);
    expect(files()).toEqual(before);
    expect(removeDatabase(dbpath, fingerprint(dbpath), () => false)).toBe(true);
  });

  test("that a kill cut short is undone by recovery", () => {
    renameSync(dbpath, `${dbpath}.removing`);
    recoverDatabase(dbpath);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
    recoverDatabase(dbpath);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
  });

  test("that was not finished keeps both where another file has come into its place; only one that needs no proof takes them", () => {
    renameSync(dbpath, `${dbpath}.removing`);
    writeFileSync(dbpath, "another database");
    const before = files();
    const both = /There are two databases: .*a\.db\.removing.*Find out which one is right/;
    expect(() => recoverDatabase(dbpath)).toThrow(both);
    expect(() => removeDatabase(dbpath, fingerprint(dbpath))).toThrow(both);
    expect(files()).toEqual(before);
    expect(removeDatabase(dbpath)).toBe(true);
    expect(files()).toEqual([]);
  });

  test("of leftovers is none while a database waits aside: it needs its -wal", () => {
    renameSync(dbpath, `${dbpath}.removing`);
    const before = files();
    removeLeftovers(dbpath);
    expect(files()).toEqual(before);
    recoverDatabase(dbpath);
    removeLeftovers(dbpath);
    expect(files()).toEqual(before.map((name) => name.replace(".removing", "")).sort());
  });

  test("succeeds where a kill has left two names of one file", () => {
    linkSync(dbpath, `${dbpath}.removing`);
    expect(removeDatabase(dbpath, fingerprint(dbpath))).toBe(true);
    expect(files()).toEqual([]);
  });

  test("is not undone where something else stands in its place", () => {
    mkdirSync(`${dbpath}.removing`);
    expect(() => recoverDatabase(dbpath)).toThrow(/a\.db\.removing could not be put back.*no plain file/s);
    expect(readFileSync(dbpath, "utf8")).toBe("a database");
  });

  test("is finished by recovery where a kill has left two names of one file", () => {
    linkSync(dbpath, `${dbpath}.removing`);
    recoverDatabase(dbpath);
    expect(files()).toEqual([".a.db-litestream", "a.db", "a.db-wal"]);
  });
});
