// The life of an app on machines that come and go, with real parts: litestream from npm, SQLite, an S3 server in this
// process. Run it with `npm run demo`.
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startFauxqs } from "fauxqs";
import Database from "libsql";
import { ConfigS3 } from "litestream-s3";
import pino from "pino";

const ROWS = 1000;
const step = (text) => console.log(`\n▸ ${text}`);
const note = (text) => console.log(`  ${text}`);
const inFolder = (folder) => `the folder holds: ${readdirSync(folder).join(", ") || "nothing"}`;

async function lifeOfAnApp(s3, folder) {
  // In an app these come from the environment or .env: new ConfigS3() is enough.
  const config = new ConfigS3(
    { key: "demo-access-key-id", token: "demo-secret-access-key", s3, folder },
    { envFile: false, logger: pino({ level: "silent" }) },
  );
  note(`${config}`);

  step(
    "First boot: restore() looks for a backup. There is none yet, so the app begins with an empty database.",
  );
  await config.restore({ ifReplicaExists: true });
  note(inFolder(folder));

  step(`The app runs and commits ${ROWS} rows.`);
  const db = new Database(config.dbpath);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE visit (id INTEGER PRIMARY KEY, at TEXT NOT NULL)");
  const insert = db.prepare("INSERT INTO visit (at) VALUES (?)");
  for (let i = 0; i < ROWS; i += 1) insert.run(new Date().toISOString());
  db.close();
  note(inFolder(folder));

  step(
    "Shutdown: timedReplicate(10) waits for the proof that every commit is in S3, then deletes the local files.",
  );
  const start = performance.now();
  const replicated = await config.timedReplicate(10);
  note(`${replicated} after ${Math.round(performance.now() - start)} ms`);
  note(inFolder(folder));
  if (!replicated || existsSync(config.dbpath)) return "the replication is not proven";

  step("Next boot, on a machine with an empty disk: restore() brings everything back.");
  await config.restore({ ifReplicaExists: true });
  note(inFolder(folder));
  const restored = new Database(config.dbpath);
  const { rows } = restored.prepare("SELECT count(*) AS rows FROM visit").get();
  restored.close();
  note(`${rows} of ${ROWS} rows are there`);
  return rows === ROWS ? undefined : `${ROWS - rows} rows are missing`;
}

const server = await startFauxqs({ port: 0, host: "127.0.0.1", logger: false });
server.createBucket("demo");
const folder = mkdtempSync(join(tmpdir(), "litestream-s3-demo-"));
try {
  const problem = await lifeOfAnApp(`s3://demo.localhost:${server.port}/app.sqlite`, folder);
  console.log(problem === undefined ? "\n✔ Nothing was lost." : `\n✖ ${problem}`);
  process.exitCode = problem === undefined ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
  await server.stop();
}
