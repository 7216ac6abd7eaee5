// How long timedReplicate takes beside the bare command line doing the same: `npm run bench -- LITESTREAM...` names the
// executables; default: the npm package's. Prints the median of each, in ms, and their
// ratio, and what the list takes by itself that goes before the first upload.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { startFauxqs } from "fauxqs";
import Database from "libsql";
import { ConfigS3 } from "litestream-s3";
import pino from "pino";

const RUNS = 7;
const ROWS = 1000; // of 1000 bytes: a database of about 1 MB
const key = "bench-access-key-id";
const token = "bench-secret-access-key";
const npmBinary = `@flydotio/litestream-${process.platform}-${process.arch}/litestream`;
const named = process.argv.slice(2);
const binaries = named.length > 0 ? named : [createRequire(import.meta.url).resolve(npmBinary)];

const server = await startFauxqs({ port: 0, host: "127.0.0.1", logger: false });
server.createBucket("bench");
let urls = 0;
const lastUrl = () => `s3://bench.localhost:${server.port}/${urls}.db`;
const newUrl = () => {
  urls += 1;
  return lastUrl();
};

async function withDatabase(work) {
  const folder = mkdtempSync(join(tmpdir(), "litestream-s3-bench-"));
  const dbpath = join(folder, "db.sqlite");
  const db = new Database(dbpath);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
  const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(1000))");
  db.exec("BEGIN");
  for (let i = 0; i < ROWS; i += 1) insert.run();
  db.exec("COMMIT");
  db.close();
  // Within the second after a boot 0.3 waits for its end: not what a shutdown usually meets.
  await sleep(1200);
  return await work(folder, dbpath).finally(() => rmSync(folder, { recursive: true, force: true }));
}

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** The library: proof, removal and all. */
const library = (litestream) =>
  withDatabase((folder) => {
    const options = { envFile: false, litestream, logger: pino({ level: "silent" }) };
    const config = new ConfigS3({ key, token, s3: newUrl(), folder }, options);
    return timed(async () => {
      if (!(await config.timedReplicate(30))) throw new Error("not proven");
    });
  });

/**
 * By hand, without any proof: 0.5 once; 0.3 until its first synchronisation is over (0.3.12 and later can hang for ever on a
 * SIGINT before that), then SIGINT.
 */
const commandLine = (litestream, once05) =>
  withDatabase((_, dbpath) => {
    const env = { AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: token };
    const args = ["replicate", ...(once05 ? ["-once"] : []), dbpath, newUrl()];
    return timed(async () => {
      const child = spawn(litestream, args, { env, stdio: ["ignore", "ignore", "pipe"] });
      createInterface(child.stderr).on("line", (line) => {
        if (/\(s3\): snapshot written|INFO wal segment written/.test(line)) child.kill("SIGINT");
      });
      const [code] = await once(child, "exit");
      if (code !== 0) throw new Error(`exit code ${code}`);
    });
  });

/** What tells whether another machine has written, before the first upload: of a replica that was written to once. */
const list = (litestream, once05) =>
  timed(async () => {
    const env = { AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: token };
    const args = once05 ? ["ltx", "-level", "all", lastUrl()] : ["wal", lastUrl()];
    const [code] = await once(spawn(litestream, args, { env, stdio: "ignore" }), "exit");
    if (code !== 0) throw new Error(`exit code ${code}`);
  });

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

for (const litestream of binaries) {
  const help = spawnSync(litestream, ["replicate", "-h"], { encoding: "utf8" });
  const once05 = /^\s+-once\b/m.test(help.stdout + help.stderr); // which stream depends on the version
  await library(litestream); // finds out what the binary is, once a process
  const times = { library: [], commandLine: [], list: [] };
  for (let run = 0; run < RUNS; run += 1) {
    times.library.push(await library(litestream));
    times.commandLine.push(await commandLine(litestream, once05));
    times.list.push(await list(litestream, once05));
  }
  const [ours, bare, listing] = [times.library, times.commandLine, times.list].map(median);
  const share = `of which the list before it ${listing.toFixed(0)} ms`;
  console.log(
    `${litestream}: timedReplicate ${ours.toFixed(0)} ms, ${share}, bare CLI ${bare.toFixed(0)} ms, ratio ${(ours / bare).toFixed(2)}`,
  );
}
await server.stop();
