// An app with a shutdown hook in a process of its own: `node shutdown-app.mjs PLAN-AS-JSON`. Prints one JSON line an event;
// the log goes to stderr. A timer that nobody stops keeps it alive: nothing but the hook ends it.
import { createServer } from "node:http";
import Database from "libsql";
import { ConfigS3 } from "../../dist/index.js";

const { databases, hooks, remove = [], other = false, exitCode, restore } = JSON.parse(process.argv[2]);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
if (exitCode !== undefined) process.exitCode = exitCode;

setInterval(() => {}, 60_000);
const server = createServer().listen(0, "127.0.0.1");
const opened = databases.map(({ settings, litestream, rows }) => {
  const config = new ConfigS3(settings, { envFile: false, litestream });
  if (rows === undefined) return { config };
  const db = new Database(config.dbpath);
  // No statement, which would keep the database open after its close().
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)");
  const write = () => db.exec("INSERT INTO t (body) VALUES (randomblob(10))");
  for (let i = 0; i < rows; i += 1) write();
  return { config, db, write };
});

const closes = {
  all: () => {
    server.close();
    for (const { db } of opened) db?.close();
  },
  throws: () => {
    throw new Error(`the server is not running, says ${databases[0].settings.token}`);
  },
  hangs: () => new Promise(() => {}),
  blocks: (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
  removes: () => {
    for (const remove of removals) remove();
  },
  late: () => {
    opened[0].config.onShutdown({ timeoutSeconds: 5 });
  },
};

function register({ database = 0, close, ms, ...options }, number) {
  const run = () => {
    say({ closing: number });
    return closes[close](ms);
  };
  return opened[database].config.onShutdown({ ...options, ...(close && { close: run }) });
}

if (other) {
  process.on("SIGTERM", async () => {
    await new Promise((done) => setImmediate(done));
    say({ other: "SIGTERM" });
  });
}
const removals = hooks.map(register);
for (const number of remove) removals[number]();

// What a request would do.
process.on("SIGUSR2", () => {
  opened[0].write();
  say({ wrote: true });
});
say({ ready: true, listeners: [process.listenerCount("SIGTERM"), process.listenerCount("SIGINT")] });
if (restore) await opened[0].config.restore();
