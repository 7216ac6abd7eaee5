// Another program on the same database: `node checkpoint-race.mjs DATABASE`. It commits a large row while litestream 0.5 reads
// the database for the first time, and a small one around litestream's own checkpoint, just after the last row was read.
import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import Database from "libsql";

const dbpath = process.argv[2];
const db = new Database(dbpath, { timeout: 5000 });
db.pragma("wal_autocheckpoint = 0");
const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(?))");
const folder = join(dirname(dbpath), `.${basename(dbpath)}-litestream`, "ltx", "0");
const until = (txid) => {
  const end = Date.now() + 5000;
  while (Date.now() < end) {
    try {
      if (readdirSync(folder).some((name) => name.startsWith(txid))) return;
    } catch {
      // not there yet
    }
  }
};
console.log(JSON.stringify({ ready: true }));
until("0000000000000001-");
insert.run(3_000_000);
until("0000000000000002-");
insert.run(10);
process.kill(process.pid, "SIGKILL");
