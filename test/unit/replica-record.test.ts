import { chmodSync, chownSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { FileSystemError } from "../../src/index.ts";
import { type ReplicaRecord, readRecords, writeRecord } from "../../src/replica-record.ts";
import { RECORD, tempFolder } from "../support/setup.ts";

const record = (place: string, uploading = false): ReplicaRecord => ({
  place,
  position: { "": "07" },
  uploading,
});

function database(mode = 0o644) {
  const dbpath = join(tempFolder(), "db.sqlite");
  writeFileSync(dbpath, "");
  chmodSync(dbpath, mode);
  return { dbpath, file: join(dirname(dbpath), RECORD) };
}

const modeOf = (file: string) => statSync(file).mode & 0o777;

describe("what is written down", () => {
  test("is read again, the last replica first, and each of them once", () => {
    const { dbpath } = database();
    expect(readRecords(dbpath)).toBe("missing");
    writeRecord(dbpath, record("a"), []);
    writeRecord(dbpath, record("b", true), [record("a")]);
    writeRecord(dbpath, record("a"), [record("b", true), record("a")]);
    expect(readRecords(dbpath)).toEqual([record("a"), record("b", true)]);
    expect(readdirSync(dirname(dbpath)).sort()).toEqual([RECORD, "db.sqlite"]);
  });

  test("may say that the position is not known", () => {
    const { dbpath } = database();
    writeRecord(dbpath, { place: "a", position: undefined, uploading: false }, []);
    expect(readRecords(dbpath)).toEqual([{ place: "a", uploading: false }]);
  });

  test("does not grow for ever", () => {
    const { dbpath } = database();
    const many = Array.from({ length: 30 }, (_, i) => record(`place ${i}`));
    writeRecord(dbpath, record("newest"), many);
    const read = readRecords(dbpath);
    expect(read).toHaveLength(5);
    expect(read[0]).toEqual(record("newest"));
  });

  test("where there is room for no other file, goes over the old one in a single write, of the same length", () => {
    const { dbpath, file } = database();
    writeRecord(dbpath, record("a"), [record("b"), record("c")]);
    const { size } = statSync(file);
    mkdirSync(`${file}.tmp`);
    writeRecord(dbpath, record("d"), []);
    expect(readRecords(dbpath)).toEqual([record("d")]);
    expect(statSync(file).size).toBe(size);
  });

  test("is read in the form of before, which knew one replica by its spelling", () => {
    const { dbpath, file } = database();
    writeFileSync(
      file,
      '{"replica":"0.5  s3://b.localhost:9000/x.db","position":{"":"07"},"uploading":true}',
    );
    expect(readRecords(dbpath)).toEqual([record("0.5 http://localhost:9000 s3://b/x.db", true)]);
  });

  test.each([
    "",
    " ",
    "{",
    "null",
    "7",
    "[]",
    "{}",
    '{"replicas":[]}',
    '{"replicas":[{"place":"a"}]}',
    '{"replica":7}',
  ])("is damaged: %j", (text) => {
    const { dbpath, file } = database();
    writeFileSync(file, text);
    expect(readRecords(dbpath)).toBe("damaged");
  });
});

describe("what can't be read is not missing", () => {
  test("a folder in its place", () => {
    const { dbpath, file } = database();
    mkdirSync(file);
    expect(() => readRecords(dbpath)).toThrow(FileSystemError);
    expect(() => readRecords(dbpath)).toThrow(/\.db\.sqlite-litestream-s3: EISDIR.*move away/);
  });

  test("a symbolic link that leads to itself", () => {
    const { dbpath, file } = database();
    symlinkSync(file, file);
    expect(() => readRecords(dbpath)).toThrow(/ELOOP.*move away/);
  });

  test("another user's", () => {
    const { dbpath, file } = database();
    writeRecord(dbpath, record("a"), []);
    chmodSync(file, 0);
    asNobody(dirname(dbpath));
    expect(() => readRecords(dbpath)).toThrow(FileSystemError);
    expect(() => readRecords(dbpath)).toThrow(/EACCES.*\(uid \d+\).*chown/);
  });
});

/** Root may read everything: until the end of the test this process is nobody, in a folder that is theirs. */
function asNobody(folder: string): void {
  if (process.getuid?.() !== 0) return;
  chownSync(folder, 65534, 65534);
  process.seteuid?.(65534);
  onTestFinished(() => void process.seteuid?.(0));
}

describe("who may read the database may read what is known of its replica", () => {
  test.each([0o600, 0o640, 0o644, 0o660])("the mode %o", (mode) => {
    const { dbpath, file } = database(mode);
    writeRecord(dbpath, record("a"), []);
    expect(modeOf(file)).toBe(mode);
  });

  test("before there is a database: who may list its folder", () => {
    const folder = tempFolder();
    for (const [mode, expected] of [
      [0o700, 0o600],
      [0o750, 0o640],
      [0o755, 0o644],
      [0o777, 0o664],
    ] as const) {
      chmodSync(folder, mode);
      writeRecord(join(folder, "db.sqlite"), record("a"), []);
      expect(modeOf(join(folder, RECORD)).toString(8)).toBe(expected.toString(8));
    }
  });

  test.skipIf(process.getuid?.() !== 0)(
    "root gives it to the user who has the database, or the folder",
    () => {
      const { dbpath, file } = database(0o600);
      chownSync(dbpath, 1234, 1235);
      writeRecord(dbpath, record("a"), []);
      expect(statSync(file)).toMatchObject({ uid: 1234, gid: 1235 });
      const folder = tempFolder();
      chownSync(folder, 1236, 1237);
      writeRecord(join(folder, "db.sqlite"), record("a"), []);
      expect(statSync(join(folder, RECORD))).toMatchObject({ uid: 1236, gid: 1237 });
    },
  );

  test("an unfinished one that another user has left is in nobody's way", () => {
    const { dbpath, file } = database();
    writeFileSync(`${file}.tmp`, "half");
    chmodSync(`${file}.tmp`, 0);
    asNobody(dirname(dbpath));
    writeRecord(dbpath, record("a"), []);
    expect(readRecords(dbpath)).toEqual([record("a")]);
  });
});
