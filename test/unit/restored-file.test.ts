import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lookAtRestored } from "../../src/restored-file.ts";
import { tempFolder } from "../support/setup.ts";

interface Header {
  magic?: string;
  pageSize?: number;
  pages?: number;
  change?: number;
  validFor?: number;
}

function look(
  size: number,
  { magic = "SQLite format 3\0", pageSize = 4096, pages = 3, change = 7, validFor = 7 }: Header = {},
) {
  const file = Buffer.alloc(Math.max(size, 100));
  file.write(magic, "latin1");
  file.writeUInt16BE(pageSize, 16);
  file.writeUInt32BE(change, 24);
  file.writeUInt32BE(pages, 28);
  file.writeUInt32BE(validFor, 92);
  const path = join(tempFolder(), "a.db");
  writeFileSync(path, file.subarray(0, size));
  return lookAtRestored(path);
}

test.each<[string, number, Header?]>([
  ["with all of its pages", 3 * 4096],
  ["with pages of 512 bytes", 3 * 512, { pageSize: 512 }],
  ["with pages of 65536 bytes, which the header calls 1", 3 * 65_536, { pageSize: 1 }],
  ["that is empty, as SQLite leaves it", 0],
  ["whose count is of an older change, shorter than that", 2 * 4096, { validFor: 6 }],
  ["whose count is of an older change, longer than that", 5 * 4096, { validFor: 6 }],
  ["without a count", 5 * 4096, { pages: 0 }],
])("a database %s is whole", (_, size, header) => expect(look(size, header)).toEqual({}));

test("a database that goes on behind its pages is one to SQLite: no good backup is refused", () =>
  expect(look(5 * 4096)).toEqual({ surplus: 2 * 4096 }));

test.each<[string, number, Header | undefined, RegExp]>([
  ["has lost a page", 2 * 4096, undefined, /its header says 3 pages of 4096 bytes, and it has 8192 bytes/],
  ["has lost a part of a page", 3 * 4096 - 1, undefined, /3 pages of 4096 bytes, and it has 12287 bytes/],
  ["has lost nearly all", 100, { validFor: 6 }, /at least one page of 4096 bytes, and it has 100 bytes/],
  ["has lost a part of its header", 50, undefined, /does not begin as an SQLite database/],
  ["is encrypted", 3 * 4096, { magic: "\x9f".repeat(16) }, /does not begin as an SQLite database/],
  ["has pages of no size", 3 * 4096, { pageSize: 0 }, /pages of 0 bytes/],
  ["has pages of a size that SQLite does not know", 3 * 4096, { pageSize: 4095 }, /pages of 4095 bytes/],
])("a file that %s is damaged", (_, size, header, words) => expect(look(size, header).damage).toMatch(words));
