import { expect, test } from "vitest";
import { isAnother } from "../../src/litestream/replaced.ts";

/** The head of a database file. */
function header({ changes = 10, pageSize = 4096, version = 2 } = {}): Buffer {
  const head = Buffer.alloc(100);
  head.write("SQLite format 3\0");
  head.writeUInt16BE(pageSize, 16);
  head.writeUInt8(version, 18);
  head.writeUInt32BE(changes, 24);
  return head;
}

const before = header();

test("a header that is the same, or that a checkpoint has from the -wal, is of the same database", () => {
  expect(isAnother(before, header(), "nowhere")).toBe(false);
  expect(isAnother(before, header({ changes: 9 }), "wal")).toBe(false);
});

test("a header that nothing in a -wal that goes on explains is another database's", () => {
  expect(isAnother(before, header({ changes: 11 }), "nowhere")).toBe(true);
});

test("where the -wal was begun anew, only what can't be of one database tells", () => {
  expect(isAnother(before, header({ changes: 11 }), "unknown")).toBe(false);
  expect(isAnother(header({ changes: 2 ** 32 - 1 }), header({ changes: 3 }), "unknown")).toBe(false);
  expect(isAnother(before, header({ changes: 9 }), "unknown")).toBe(true);
  expect(isAnother(before, header({ changes: 11, pageSize: 1024 }), "unknown")).toBe(true);
  expect(isAnother(before, header({ changes: 11, version: 1 }), "unknown")).toBe(true);
  expect(isAnother(header({ version: 1 }), header({ changes: 11 }), "unknown")).toBe(false);
});

test("a file that has become too short for a database is none; one that had no header tells nothing", () => {
  expect(isAnother(before, Buffer.alloc(0), "unknown")).toBe(true);
  expect(isAnother(undefined, before, "nowhere")).toBe(false);
});
