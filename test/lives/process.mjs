// One process of a life: SPEC in the environment says what it does. Roles: `app` (restore, write, timedReplicate, as the README's
// app does), `writer` and `reader` (another program on the same database), `check` (opens it and tells what is in it).
// Events go to stdout, one JSON line each; orders come by stdin, one word a line. Each commit is recorded in a file
// outside the database: `i LIFE ID` before it, `a LIFE ID` once it is acknowledged.
import { createHash } from "node:crypto";
import { appendFileSync, statSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import Database from "libsql";

const spec = JSON.parse(process.env.SPEC);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
process.stdout.on("error", () => process.exit(0)); // the harness is gone

const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const order = async () => (await orders.next()).value;

const bodyOf = (life, id, bytes) => {
  const hash = createHash("sha256").update(`${life}:${id}`).digest();
  return Buffer.alloc(bytes, hash);
};

function open() {
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
function contentOf(db) {
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

function committer(db, { life, bytes, churn }) {
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
    // A commit to a file that has left its place came after the removal.
    if (statSync(spec.dbpath, { throwIfNoEntry: false })?.ino === ino)
      appendFileSync(spec.acks, `a ${life} ${id}\n`);
    else throw new Error("the database is gone");
  };
}

/** Commits until it is told to stop, a few thousand times at most; a database that is busy, full or gone ends it. */
function commitEvery(ms, commit, db, checkpoints) {
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

async function app() {
  const { ConfigS3 } = await import("../../dist/index.js");
  const { settings, litestream, work, end } = spec;
  const config = new ConfigS3(settings, { envFile: false, litestream });
  const outcomeOf = async (promise) =>
    await promise.then(
      (value) => ({ value }),
      ({ name, code, reason, message }) => ({ error: { name, code, reason, message } }),
    );

  say({ booting: true });
  const boot = await outcomeOf(
    config.restore({ ifDbNotExists: true, ifReplicaExists: true, timeoutSeconds: spec.bootSeconds }),
  );
  say({ boot });
  if (boot.error) process.exit(1);

  await order(); // there is room on the disk again
  let db = open();
  say({ content: contentOf(db) });
  if ((await order()) !== "work") process.exit(0);
  let commit = committer(db, { life: spec.life, ...work });
  let problem;
  const commits = (count) => {
    try {
      for (let i = 0; i < count; i += 1) commit();
    } catch (error) {
      problem = error.message; // a full disk: what is not acknowledged is not promised
    }
  };
  commits(work.rows);
  if (work.sync) {
    say({
      synced: await outcomeOf(config.replicateOnce({ timeoutSeconds: spec.syncSeconds, keepLocal: true })),
    });
    commits(work.rows);
  }
  try {
    if (work.checkpoint !== "NONE") db.pragma(`wal_checkpoint(${work.checkpoint})`);
  } catch (error) {
    problem = error.message;
  }
  say({ wrote: problem ?? true });

  let replication;
  const heard = [];
  const slowly = async (count) => {
    for (let i = 0; i < count && problem === undefined; i += 1) {
      commits(1);
      await pause(spec.continuous.everyMs);
    }
  };
  const replicate = async () => {
    const start = performance.now();
    const replicating = await outcomeOf(
      config
        .replicate({
          startTimeoutSeconds: spec.continuous.seconds,
          onFailing: (message) => heard.push(`failing: ${message}`),
          onRecovered: () => heard.push("recovered"),
        })
        .then((started) => {
          replication = started;
          return true;
        }),
    );
    say({ replicating, startOvertimeMs: performance.now() - start - spec.continuous.seconds * 1000 });
    await slowly(spec.continuous.rows);
    say({ beside: problem ?? true });
  };
  /** Until it says that all is up, which 0.3 does after a commit only. */
  const settle = async () => {
    commits(1);
    const last = new Date();
    const isUp = ({ running, failingSince, lastSync }) =>
      running && failingSince === undefined && lastSync > last;
    while (!isUp(replication.status())) await pause(20);
    say({ settled: { heard, restarts: replication.status().restarts } });
  };
  for (let word = await order(); word !== "stop"; word = (await order()) ?? "stop") {
    if (word === "replicate") await replicate();
    else if (word === "settle") await settle();
    else if (word.startsWith("more ")) {
      await slowly(Number(word.slice(5)));
      say({ more: true });
    }
  }
  let stop = () => {};
  if (end.writer === "same") stop = commitEvery(end.everyMs, commit, db, end.checkpoints);
  else if (end.close) {
    db.close();
    db = undefined;
    commit = undefined;
    // Only then libsql closes the files.
    for (let i = 0; i < 2; i += 1) {
      globalThis.gc();
      await pause(0);
    }
  }
  say({ closed: true });
  await order(); // the harness has prepared what happens to the shutdown
  const delays = monitorEventLoopDelay({ resolution: 2 });
  delays.enable();
  const start = performance.now();
  say({ stopping: true });
  const calls = Array.from({ length: end.calls }, () =>
    outcomeOf(
      end.stop && replication
        ? replication.stop({ timeoutSeconds: end.seconds, deleteLocal: end.stop === "delete" })
        : config.replicateOnce({ timeoutSeconds: end.seconds }),
    ),
  );
  if (end.writerMs) setTimeout(() => stop(), end.writerMs).unref();
  const result = await calls[0].then((first) => {
    stop();
    return first;
  });
  delays.disable();
  const overtimeMs = performance.now() - start - end.seconds * 1000 - delays.max / 1e6;
  const others = await Promise.all(calls.slice(1));
  say({ result, others, overtimeMs });
  process.exit(0);
}

async function writer() {
  const db = open();
  const commit = committer(db, { life: spec.life, ...spec.work });
  try {
    for (let i = 0; i < spec.work.rows; i += 1) commit();
  } catch {
    // a full disk
  }
  say({ ready: true });
  if (!spec.everyMs) return db.close();
  const stop = commitEvery(spec.everyMs, commit, db, spec.checkpoints);
  await order();
  stop();
  db.close();
}

async function reader() {
  const db = new Database(spec.dbpath, { timeout: 10_000 });
  db.exec("BEGIN");
  db.prepare("SELECT count(*) FROM sqlite_master").get();
  say({ ready: true });
  await order();
}

async function check() {
  const db = new Database(spec.dbpath, { timeout: 10_000 });
  try {
    say({ content: contentOf(db) });
  } catch (error) {
    say({ damaged: error.message });
  }
  await pause(0);
}

await { app, writer, reader, check }[spec.role]();
process.exit(0);
