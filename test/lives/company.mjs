// The other processes that have the database of a life open: `writer` and `reader` (another program), `late` (a second process of the
// same app), and `check`, which opens it and tells what is in it.
import Database from "libsql";
import { commitEvery, committer, contentOf, open } from "./rows.mjs";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
/** The same clock in every process. */
export const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

/** Closes it; libsql does so only once nobody holds it. */
export async function close(db) {
  db.close();
  for (let i = 0; i < 2; i += 1) {
    globalThis.gc();
    await pause(0);
  }
}

export async function writer(spec, say, order) {
  const db = open(spec);
  const commit = committer(db, spec, spec.work, "another's");
  try {
    for (let i = 0; i < spec.work.rows; i += 1) commit();
  } catch {
    // a full disk
  }
  say({ ready: true });
  if (!spec.everyMs) return db.close();
  const stop = commitEvery(spec, spec.everyMs, commit, db, spec.checkpoints);
  await order();
  stop();
  db.close();
}

/** Has it open, in the middle of a read or idle, until it is told to leave. */
export async function reader(spec, say, order) {
  const db = new Database(spec.dbpath, { timeout: 10_000 });
  if (!spec.idle) db.exec("BEGIN");
  db.prepare("SELECT count(*) FROM sqlite_master").get();
  say({ ready: true });
  await order();
  say({ closingAt: now() });
}

/** Has got the signal too, but commits in its own close(), which takes longer; then it replicates, as the first process did. */
export async function late(spec, say, order) {
  const { ConfigS3 } = await import("../../dist/index.js");
  const { settings, litestream, work, seconds } = spec;
  const config = new ConfigS3(settings, { envFile: false, litestream });
  const db = open(spec);
  let commit = committer(db, spec, work, "another's");
  say({ ready: true });
  await order();
  try {
    for (let i = 0; i < work.rows; i += 1) commit();
  } catch {
    // a full disk
  }
  commit = undefined;
  say({ closingAt: now() });
  await close(db);
  const result = await config.replicateOnce({ timeoutSeconds: seconds }).then(
    (value) => ({ value }),
    ({ name, code, reason, message }) => ({ error: { name, code, reason, message } }),
  );
  say({ result });
}

export async function check(spec, say) {
  const db = new Database(spec.dbpath, { timeout: 10_000 });
  try {
    say({ content: contentOf(db) });
  } catch (error) {
    say({ damaged: error.message });
  }
  await pause(0);
}
