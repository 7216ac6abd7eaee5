import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { onTestFinished } from "vitest";
import type { ConfigS3 } from "../../src/index.ts";
import { LITESTREAM } from "./litestream.ts";
import { jsonLines } from "./shutdown-app.ts";

/**
 * Runs a small app of its own, from its source. Has `ConfigS3`, `Database` (libsql), `configs` and `config`, the first of them,
 * `say(event)`, and `open(config, rows)`: a database in WAL mode with so many more rows, which has `write()`.
 */
export function startScript(configs: ConfigS3[], body: string) {
  const settings = configs.map(({ key, token, s3, folder, db, endpoint, region }) => {
    return { key, token, s3, folder, db, endpoint, region };
  });
  const source = `
    import Database from "libsql";
    import { ConfigS3 } from ${JSON.stringify(pathToFileURL(resolve("dist/index.js")).href)};
    const say = (event) => process.stdout.write(JSON.stringify(event) + "\\n");
    const settings = ${JSON.stringify(settings)};
    const options = { envFile: false, litestream: ${JSON.stringify(LITESTREAM)} };
    const configs = settings.map((each) => new ConfigS3(each, options));
    const [config] = configs;
    function open({ dbpath }, rows) {
      const db = new Database(dbpath);
      db.exec("PRAGMA journal_mode = WAL");
      db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body BLOB)");
      db.write = () => db.exec("INSERT INTO t (body) VALUES (randomblob(10))");
      for (let i = 0; i < rows; i += 1) db.write();
      return db;
    }
    ${body}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", source], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const events = jsonLines(child.stdout);
  const log = jsonLines(child.stderr);
  return {
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    events: events.lines,
    event: (name: string) => events.next((event) => name in event),
    lines: log.lines as { level?: number; msg: string; [field: string]: unknown }[],
    logged: (pattern: RegExp) => log.next(({ msg }) => pattern.test(String(msg))),
    ended: once(child, "close").then(() => ({ code: child.exitCode, signal: child.signalCode })),
  };
}
