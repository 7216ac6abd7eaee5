// Big databases, in a process of their own: `node big-database.mjs make|sum DATABASE` prints one JSON line, how many rows
// it has and the checksum of all of them. `make` leaves 1 GB in the main file and 200 MB in the -wal, and kills itself.
import { createHash } from "node:crypto";
import Database from "libsql";

const [, , action, dbpath] = process.argv;
const ROW = 10_000;
const db = new Database(dbpath);

function insert(bytes) {
  const rows = Math.ceil(bytes / ROW);
  db.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
    INSERT INTO t (body) SELECT randomblob(${ROW}) FROM n`);
}

if (action === "make") {
  // Straight into the main file first: no -wal, no journal, no wait for the disk.
  db.pragma("journal_mode = OFF");
  db.pragma("synchronous = OFF");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
  insert(1e9);
  db.pragma("journal_mode = WAL");
  db.pragma("wal_autocheckpoint = 0");
  for (let i = 0; i < 4; i += 1) insert(50e6);
}

const hash = createHash("sha256");
let rows = 0;
for (const [id, body] of db.prepare("SELECT id, body FROM t ORDER BY id").raw().iterate()) {
  hash.update(`${id} `).update(body);
  rows += 1;
}
process.stdout.write(`${JSON.stringify({ rows, sha256: hash.digest("hex") })}\n`, () => {
  // A close would take the -wal into the main file.
  if (action === "make") process.kill(process.pid, "SIGKILL");
});
