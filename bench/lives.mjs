// What lives do to the next boot: `npm run build && VERSITYGW_BIN=… node bench/lives.mjs LITESTREAM [LIVES] [MB]`. Each life
// restores to an empty disk, adds a row and ends with timedReplicate. Prints how long the restore took, what the bucket
// held then, and how long timedReplicate took.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { ConfigS3 } from "litestream-s3";
import pino from "pino";

const SHOWN = [1, 2, 5, 10, 25, 30, 50, 75, 100];
const key = "bench-access-key-id";
const token = "bench-secret-access-key";
const [litestream, lives = "100", megabytes = "10"] = process.argv.slice(2);
const gateway = process.env.VERSITYGW_BIN;
if (!litestream || !gateway)
  throw new Error("usage: VERSITYGW_BIN=… node bench/lives.mjs LITESTREAM [LIVES] [MB]");

const root = mkdtempSync(join(tmpdir(), "litestream-s3-lives-"));
const bucket = join(root, "data", "bench");
const side = join(root, "side");
mkdirSync(bucket, { recursive: true });
mkdirSync(side);
const port = await freePort();
const args = ["--access", key, "--secret", token, "--port", `127.0.0.1:${port}`];
const server = spawn(gateway, [...args, "posix", "--sidecar", side, join(root, "data")], { stdio: "ignore" });
try {
  while (!(await answers())) {
    if (server.exitCode !== null) throw new Error(`${gateway} ended with exit code ${server.exitCode}`);
    await new Promise((done) => setTimeout(done, 20));
  }
  await bench();
} finally {
  server.kill("SIGKILL");
  await once(server, "exit");
  rmSync(root, { recursive: true, force: true });
}

async function bench() {
  const folder = join(root, "folder");
  const s3 = `s3://bench.localhost:${port}/db.sqlite`;
  const options = { envFile: false, litestream, logger: pino({ level: process.env.LOG_LEVEL ?? "error" }) };
  const config = new ConfigS3({ key, token, s3, folder }, options);
  add(config.dbpath, Number(megabytes) * 1000);
  await shutdown(config);
  let first;
  let last;
  console.log(`${litestream}, ${megabytes} MB\nlife  restore s  bucket MB  objects  timedReplicate s`);
  for (let life = 1; life <= Number(lives); life += 1) {
    const { bytes, objects } = held();
    last = await timed(() => config.restore());
    first ??= last;
    const rows = add(config.dbpath, 1);
    if (rows !== Number(megabytes) * 1000 + life) throw new Error(`${rows} rows in life ${life}`);
    const end = await shutdown(config);
    const line = [life, last.toFixed(2), (bytes / 1e6).toFixed(1), objects, end.toFixed(2)];
    if (SHOWN.includes(life) || life === Number(lives)) console.log(line.join("\t"));
  }
  console.log(`last boot / first boot: ${(last / first).toFixed(2)}`);
}

/** Seconds until it is proven. */
async function shutdown(config) {
  return await timed(async () => {
    if (!(await config.timedReplicate(60))) throw new Error("not proven");
  });
}

/** Adds rows of 1000 bytes. @returns how many there are then */
function add(dbpath, rows) {
  const db = new Database(dbpath);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)");
  const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(1000))");
  db.exec("BEGIN");
  for (let i = 0; i < rows; i += 1) insert.run();
  db.exec("COMMIT");
  const { count } = db.prepare("SELECT count(*) AS count FROM t").get();
  db.close();
  return count;
}

/** What is in the bucket. */
function held() {
  const files = readdirSync(bucket, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const sizes = files.map((file) => statSync(join(file.parentPath ?? file.path, file.name)).size);
  return { objects: sizes.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

async function timed(work) {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

async function answers() {
  return await fetch(`http://127.0.0.1:${port}/`).then(
    () => true,
    () => false,
  );
}

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}
