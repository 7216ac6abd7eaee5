// A real app's database code in a process of its own: `node writer.mjs DATABASE OPTIONS-AS-JSON`.
// Prints one JSON line an event: {"acked": rows} after a commit, then what `after` says.
import Database from "libsql";

const [, , dbpath, json] = process.argv;
const { journal = "wal", rows = 0, after = "close", forMs = 0, everyMs = 5, bytes = 0 } = JSON.parse(json);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

process.stdout.on("error", () => process.exit(0)); // the test has ended

const db = new Database(dbpath, { timeout: 5000 });
db.pragma(`journal_mode = ${journal}`);
db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)");
const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(?))");
const count = db.prepare("SELECT count(*) AS n FROM t");

for (let i = 0; i < rows; i += 1) insert.run(bytes);
say({ acked: count.get().n });

switch (after) {
  case "close": // libsql keeps the -wal and -shm: the harder case
    db.close();
    break;
  case "kill":
    process.kill(process.pid, "SIGKILL");
    break;
  case "hold": // an app that has forgotten to close, until its stdin ends; it commits once more on SIGUSR2
    process.once("SIGUSR2", () => {
      insert.run(bytes);
      say({ acked: count.get().n });
    });
    process.stdin.resume();
    break;
  case "read": {
    const reader = new Database(dbpath);
    reader.exec("BEGIN");
    reader.prepare("SELECT count(*) FROM t").get();
    say({ reading: true });
    process.stdin.resume();
    break;
  }
  case "write": {
    const end = performance.now() + (forMs || Number.POSITIVE_INFINITY);
    process.stdin.resume();
    let ended = false;
    process.stdin.once("end", () => {
      ended = true;
    });
    while (!ended && performance.now() < end) {
      insert.run(bytes);
      say({ acked: count.get().n });
      await new Promise((done) => setTimeout(done, everyMs));
    }
    process.stdin.destroy();
    db.close();
    say({ finished: true });
    break;
  }
}
