// Another program on the same database: `node restart-wal.mjs DATABASE`. It changes a row and adds one, has SQLite move both
// into the main file, and adds one more, which begins the `-wal` anew: the first two are in no `-wal` any more.
import Database from "libsql";

const db = new Database(process.argv[2], { timeout: 5000 });
const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(3000))");
db.exec("UPDATE t SET body = 'changed' WHERE id = 1");
insert.run();
db.pragma("wal_checkpoint(PASSIVE)");
insert.run();
process.kill(process.pid, "SIGKILL"); // closing the last connection would remove the -wal
