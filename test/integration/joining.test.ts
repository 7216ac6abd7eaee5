import { Server } from "node:net";
import Database from "libsql";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** Runs once when the next lock of a database is let go of, which then takes a while. */
function atNextRelease(work: () => void): void {
  const { close } = Server.prototype;
  const restore = () => {
    Server.prototype.close = close;
  };
  onTestFinished(restore);
  Server.prototype.close = function (this: Server, done) {
    // The database's lock is an abstract socket.
    if (!String(this.address()).startsWith("\0litestream-s3-")) return close.call(this, done);
    restore();
    work();
    setTimeout(() => close.call(this, done), 200);
    return this;
  };
}

// Abstract sockets are Linux's.
test.skipIf(process.platform !== "linux")(
  "a call that comes after the last look of the one before, while that lets go of the lock, has a proof of its own",
  async () => {
    const url = replicaUrl(s3.port, "joining/late.db");
    const { config } = setUp(url);
    const db = new Database(config.dbpath);
    onTestFinished(() => void db.close());
    db.pragma("journal_mode = wal");
    db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    const keep = { timeoutSeconds: 50, keepLocal: true };
    let late: ReturnType<typeof config.replicateOnce> | undefined;
    atNextRelease(() => {
      db.exec("INSERT INTO t VALUES (2)");
      late = config.replicateOnce(keep);
    });
    expect(await config.replicateOnce(keep)).toMatchObject({ ok: true });
    expect(await late).toMatchObject({ ok: true });
    expect(rowsIn(await setUp(url).config.restore())).toBe(2);
  },
);
