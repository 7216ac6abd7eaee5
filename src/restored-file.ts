import { closeSync, fstatSync, openSync, readSync } from "node:fs";

const MAGIC = "SQLite format 3\0";
const HEADER = 100;

/** What the header of a database says of its size, beside that size. */
export interface RestoredFile {
  /** What is wrong, in words: SQLite would call the database malformed, or none. */
  readonly damage?: string;
  /** So many bytes are behind the last page; SQLite ignores them, and litestream restores them as they were. */
  readonly surplus?: number;
}

/**
 * Reads the header of a database that nobody has open (sqlite.org/fileformat2.html, 1.3). What counts is what SQLite itself
 * looks at (`lockBtree` in its btree.c): a file that is shorter than its pages is malformed, a longer one is not.
 */
export function lookAtRestored(path: string): RestoredFile {
  const header = Buffer.alloc(HEADER);
  const fd = openSync(path, "r");
  let size: number;
  try {
    readSync(fd, header, 0, HEADER, 0);
    size = fstatSync(fd).size;
  } finally {
    closeSync(fd);
  }
  if (size === 0) return {};
  if (header.toString("latin1", 0, MAGIC.length) !== MAGIC || size < HEADER)
    return { damage: "the restored file does not begin as an SQLite database does" };
  // 1 stands for 65536, which has no room there.
  const pageSize = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16);
  if (pageSize < 512 || (pageSize & (pageSize - 1)) !== 0)
    return { damage: `the restored file is damaged: its header says pages of ${pageSize} bytes` };
  const pages = header.readUInt32BE(28);
  // Programs from before SQLite 3.7.0 did not keep the count: it is of another change than the last one.
  const counts = pages > 0 && header.readUInt32BE(24) === header.readUInt32BE(92);
  const expected = counts ? pages * pageSize : pageSize;
  if (size < expected) {
    const said = `${counts ? `${pages} pages` : "at least one page"} of ${pageSize} bytes`;
    return { damage: `the restored file is damaged: its header says ${said}, and it has ${size} bytes` };
  }
  return counts && size > expected ? { surplus: size - expected } : {};
}
