import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FileSystemError } from "../../src/index.ts";
import { deadPid } from "../support/processes.ts";
import { setUp } from "../support/setup.ts";

const URL = "s3://backups/delete.db";

test("removes the database and all that belongs to it, nothing else, with a warning", async () => {
  const { config, files, log } = setUp(URL);
  const own = ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm", "db.sqlite-journal"];
  const abandoned = `db.sqlite.restore-${deadPid()}-00aa11bb`;
  const leftovers = [abandoned, `${abandoned}.tmp`, `${abandoned}.tmp-wal`];
  const others = ["db.sqlite.bak", "db.sqlite-wal2", "other.db", "xdb.sqlite"];
  for (const name of [...own, ...leftovers, ...others]) writeFileSync(join(config.folder, name), "x");
  mkdirSync(join(config.folder, ".db.sqlite-litestream", "ltx", "0"), { recursive: true });
  mkdirSync(join(config.folder, ".other.db-litestream"));
  await config.delete();
  expect(files()).toEqual([".other.db-litestream", ...others].sort());
  expect(log.at(40)).toEqual([expect.objectContaining({ msg: "deleting the local database" })]);
});

test("missing files are fine, a missing folder too", async () => {
  const { config, files } = setUp(URL);
  await config.delete();
  expect(files()).toEqual([]);
  await setUp(URL, { folder: join(config.folder, "not", "there") }).config.delete();
});

test("says what could not be removed", async () => {
  const { config } = setUp(URL);
  mkdirSync(join(config.dbpath, "x"), { recursive: true });
  const error = await config.delete().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(FileSystemError);
  expect(error).toMatchObject({ code: "FILE_SYSTEM", message: expect.stringContaining(config.dbpath) });
});

test("leaves the restore of another process that is alive", async () => {
  const { config, files } = setUp(URL);
  const theirs = `db.sqlite.restore-${process.ppid}-00aa11bb`;
  writeFileSync(join(config.folder, theirs), "half a database");
  await config.delete();
  expect(files()).toEqual([theirs]);
});
