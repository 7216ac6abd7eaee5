// The rows of a life. Each commit is recorded in a file outside the database: `i LIFE ID` before it, `a LIFE ID` once it is
// acknowledged.
import { createHash } from "node:crypto";
import { appendFileSync, statSync } from "node:fs";
import Database from "libsql";

const bodyOf = (life, id, bytes) => {
  const hash = createHash("sha256").update(`${life}:${id}`).digest();
  return Buffer.alloc(bytes, hash);
};

/** Opens the database, and makes what is missing in it. */
export function open(spec) {
  const db = new Database(spec.dbpath, { timeout: 10_000 });
  if (spec.database === undefined) return db;
  const { journal, pageSize, autoVacuum, megabytes } = spec.database;
  // These two take effect only in a database that has no page yet.
  db.pragma(`page_size = ${pageSize}`);
  db.pragma(`auto_vacuum = ${autoVacuum}`);
  db.pragma(`journal_mode = ${journal}`);
  db.exec(`CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, life INTEGER, bytes INTEGER, body BLOB);
    CREATE TABLE IF NOT EXISTS newest (one INTEGER PRIMARY KEY CHECK (one = 1), id INTEGER);
    CREATE TABLE IF NOT EXISTS junk (id INTEGER PRIMARY KEY, body BLOB);`);
  const { junk } = db.prepare("SELECT count(*) AS junk FROM junk").get();
  if (megabytes > 0 && junk === 0) {
    const insert = db.prepare("INSERT INTO junk (body) VALUES (randomblob(100000))");
    db.transaction(() => {
      for (let i = 0; i < megabytes * 10; i += 1) insert.run();
    })();
  }
  return db;
}

/** What is in it, as stretches of rows of one life; throws where SQLite, or the content, is damaged. */
export function contentOf(db) {
  const check = db.prepare("PRAGMA integrity_check").raw().all();
  if (check[0]?.[0] !== "ok") throw new Error(`integrity_check: ${check.flat().slice(0, 3).join("; ")}`);
  const tables = db.prepare("SELECT count(*) AS n FROM sqlite_master WHERE name = 't'").get().n;
  if (tables === 0) return [];
  const stretches = [];
  let newest = 0;
  for (const { id, life, bytes, length, head } of db
    .prepare("SELECT id, life, bytes, length(body) AS length, substr(body, 1, 32) AS head FROM t ORDER BY id")
    .iterate()) {
    if (id !== newest + 1) throw new Error(`row ${newest + 1} is missing before row ${id}`);
    newest = id;
    const intact =
      length === bytes && Buffer.compare(Buffer.from(head), bodyOf(life, id, Math.min(bytes, 32))) === 0;
    if (!intact) throw new Error(`row ${id} of life ${life} is not what was written`);
    const last = stretches.at(-1);
    if (last?.life === life) last.to = id;
    else stretches.push({ life, from: id, to: id });
  }
  const recorded = db.prepare("SELECT id FROM newest").get()?.id ?? 0;
  if (recorded !== newest)
    throw new Error(`the newest row is ${newest}, but the same transaction recorded ${recorded}`);
  return stretches;
}

/**
 * @param whose "the app's", which asks for the removal, or "another's"
 * @returns what commits one row more, and records it
 */
export function committer(db, spec, { bytes, churn }, whose) {
  const { life } = spec;
  const insert = db.prepare("INSERT INTO t (id, life, bytes, body) VALUES (?, ?, ?, ?)");
  const newest = db.prepare("SELECT coalesce(max(id), 0) AS id FROM t");
  const record = db.prepare("INSERT OR REPLACE INTO newest (one, id) VALUES (1, ?)");
  const fill = db.prepare("INSERT INTO junk (body) VALUES (randomblob(5000))");
  const drop = db.prepare("DELETE FROM junk WHERE id % 3 = ?");
  const { ino } = statSync(spec.dbpath);
  return () => {
    db.exec("BEGIN IMMEDIATE");
    const id = newest.get().id + 1;
    appendFileSync(spec.acks, `i ${life} ${id}\n`);
    try {
      insert.run(id, life, bytes, bodyOf(life, id, bytes));
      record.run(id);
      if (churn) {
        fill.run();
        drop.run(id % 3);
      }
      db.exec("COMMIT");
    } catch (error) {
      if (db.inTransaction) db.exec("ROLLBACK");
      throw error;
    }
    // The app's own commit to a file that has left its place came after the removal. Where another process has it open, nobody removes it.
    const counts = whose === "another's" || statSync(spec.dbpath, { throwIfNoEntry: false })?.ino === ino;
    if (counts) appendFileSync(spec.acks, `a ${life} ${id}\n`);
    else throw new Error("the database is gone");
  };
}

/** Commits until it is told to stop, a few thousand times at most; a database that is busy, full or gone ends it. */
export function commitEvery(spec, ms, commit, db, checkpoints) {
  let timer;
  let left = spec.small ? 20 : 3000;
  const next = () => {
    try {
      if (checkpoints) {
        commit();
        db.pragma("wal_checkpoint(PASSIVE)");
      }
      commit();
      left -= 1;
      if (left === 0) return;
    } catch {
      return;
    }
    timer = setTimeout(next, ms);
  };
  next();
  return () => clearTimeout(timer);
}
