import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "libsql";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startHeard, until } from "../support/continuous.ts";
import { MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

// An app that imports a backup: it closes, removes -wal and -shm, puts another file into the place, and opens that.

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** Replicates 30 rows; what is heard, in order. */
async function replicating(path: string) {
  const { config } = setUp(replicaUrl(s3.port, path));
  await writeRows(config.dbpath, 20, { bytes: 300 });
  const started = await startHeard(config);
  await writeRows(config.dbpath, 10, { bytes: 300 });
  return { config, ...started };
}

/** A database in one file, with so many rows. */
async function aFile(rows: number): Promise<string> {
  const file = join(tempFolder(), "import.db");
  await writeRows(file, rows, { bytes: 300, journal: "delete" });
  return file;
}

function replace(dbpath: string, put: () => void): void {
  for (const suffix of ["-wal", "-shm"]) rmSync(dbpath + suffix, { force: true });
  put();
}

const rowsElsewhere = async (url: string) => rowsIn(await setUp(url).config.restore());

describe.skipIf(MUTE)("the database file is replaced while it is replicated", () => {
  test("by a rename, and then in place: it is failing, has recovered with a whole copy, and nothing of the old one is in the new one", {
    timeout: 150_000,
  }, async () => {
    const { config, replication, heard } = await replicating("replaced/wait.db");
    const { dbpath } = config;
    const [small, large] = [await aFile(7), await aFile(900)];
    for (const [put, rows] of [
      [() => renameSync(small, dbpath), 7],
      [() => writeFileSync(dbpath, readFileSync(large)), 900],
    ] as const) {
      const { restarts } = replication.status();
      replace(dbpath, put);
      await until(() => replication.status().restarts > restarts);
      expect(replication.status().lastError).toMatch(/replaced by another one, while it was replicated/);
      await until(() => replication.status().failingSince === undefined);
      expect(heard.at(-1)).toBe("recovered");
      expect(await rowsElsewhere(config.s3)).toBe(rows);
      await writeRows(dbpath, 2, { bytes: 300 });
    }
    expect(await replication.stop({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
    expect(rowsIn(dbpath)).toBe(902);
    expect(await rowsElsewhere(config.s3)).toBe(902);
  });

  test.each([
    ["by a rename", renameSync],
    ["in place", copyFileSync],
  ])("%s, at the last moment: the proof at the end is one of the new file", async (name, put) => {
    const { config } = await replicating(`replaced/${put.name}.db`);
    const file = await aFile(40);
    replace(config.dbpath, () => put(file, config.dbpath));
    expect(await config.timedReplicate(30), name).toBe(true);
    expect(await rowsElsewhere(config.s3)).toBe(40);
  });

  test("what an app does to its own file is no replacement", async () => {
    const { config, heard, replication } = await replicating("replaced/own.db");
    const db = new Database(config.dbpath, { timeout: 200 });
    for (const sql of [
      "DELETE FROM t WHERE id > 15",
      "PRAGMA wal_checkpoint(TRUNCATE)",
      "VACUUM",
      "PRAGMA journal_mode = DELETE",
      "CREATE TABLE another (a)",
    ]) {
      try {
        db.exec(sql);
      } catch {
        // What litestream's own connection forbids is refused: that is no replacement either.
      }
      const { lastSync } = replication.status();
      // More than the pages after which SQLite takes a checkpoint.
      await writeRows(config.dbpath, 40, { bytes: 120_000 });
      await until(() => replication.status().lastSync !== lastSync);
    }
    db.close();
    // Of a lock, litestream itself may have complained.
    expect(heard.join()).not.toContain("replaced");
    expect(await replication.stop({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
  });
});
