import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LITESTREAM } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/**
 * A program that is the litestream under test, except that it writes down what it is to list, replicate or restore, and
 * fails to do the latter two.
 */
function recorder() {
  const folder = tempFolder();
  const file = join(folder, "litestream.cjs");
  const record = join(folder, "argv.jsonl");
  const program = `#!${process.execPath}
const args = process.argv.slice(2);
if (args.includes("/dev/stdin")) {
  const { dbs } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
  const configured = dbs.map(({ path, replicas }) => [path, ...replicas.map(({ url }) => url)]);
  require("node:fs").appendFileSync(${JSON.stringify(record)}, JSON.stringify([args, configured]) + "\\n");
}
if (/^(?:replicate|restore)$/.test(args[0]) && args[1] !== "-h") {
  console.error("Error: AccessDenied: no");
  process.exit(1);
}
const { spawnSync } = require("node:child_process");
process.exitCode = spawnSync(${JSON.stringify(LITESTREAM)}, args, { stdio: "inherit" }).status;
`;
  writeFileSync(file, program);
  chmodSync(file, 0o755);
  /** Of each run its arguments, and the databases and URLs of its configuration. */
  const runs = (): [args: string[], configured: string[][]][] =>
    readFileSync(record, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  return { file, runs };
}

const FOLDERS = [
  "$(touch x)",
  "; touch x",
  "`touch x`",
  "a && touch x",
  "| tee x",
  "> x",
  "$HOME",
  "~",
  "*",
  "{a,b}",
  "a 'b' \"c\" \\d",
  "-config",
  "--",
  "-o=x",
  "ü 雪 🦊",
  "a: b [c] {d} &e !f",
  "\u0085 \u2028 \ufeff \uffff",
];
const NAMES = [
  "a$(touch x).db",
  "a;touch x;.db",
  "a`touch x`.db",
  "a -o x.db",
  "a'b\".sqlite",
  "a*~.db",
  "a $HOME.db",
];
const PATHS = ["$(touch$IFS.x)", ";touch$IFS", "`touch$IFS`", "-config", "a'b\"c", "a%20b|c", "雪🦊"];

const CONFIGURED = ["-no-expand-env", "-config", "/dev/stdin"];

describe("what is hostile to a shell or looks like a flag reaches litestream unchanged", () => {
  test.each([
    ...FOLDERS.map((folder) => ({ folder })),
    ...NAMES.map((db) => ({ db })),
    ...PATHS.map((path) => ({ path })),
  ] as { folder?: string; db?: string; path?: string }[])(
    "%o",
    async ({ folder = "data", db = "a.db", path = "x.db" }) => {
      const root = tempFolder();
      const litestream = recorder();
      const url = replicaUrl(s3.port, path);
      const settings = { folder: join(root, folder), db };
      const { config } = setUp(url, settings, { litestream: litestream.file });
      const dbpath = join(root, folder, db);
      await expect(config.restore()).rejects.toMatchObject({ reason: "credentials" });
      await writeRows(dbpath, 1);
      expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ reason: "credentials" });

      const configured = [[dbpath, url]];
      const runs = litestream.runs();
      expect(runs.map(([, seen]) => seen)).toEqual(runs.map(() => configured));
      const [lists, others] = [true, false].map((list) =>
        runs.map(([args]) => args).filter(([command]) => /^(?:ltx|wal)$/.test(`${command}`) === list),
      );
      expect(lists?.map((args) => args.at(-1))).toEqual([dbpath, dbpath]);
      const [restored, replicated, ...more] = others ?? [];
      const target = expect.stringMatching(/\.restore-\d+-[0-9a-f]{8}$/);
      expect(restored).toEqual(["restore", ...CONFIGURED, "-o", target, dbpath]);
      expect(restored?.at(-2)?.startsWith(`${dbpath}.restore-`)).toBe(true);
      expect(replicated?.filter((arg) => arg !== "-once")).toEqual(["replicate", ...CONFIGURED]);
      expect(more).toEqual([]);
      expect(readdirSync(root)).toEqual([folder]);
      expect(existsSync("x")).toBe(false);
      expect(existsSync(join(root, folder, "x"))).toBe(false);
    },
  );
});

test("a real litestream keeps and brings back such a database", async () => {
  const folder = join(tempFolder(), "$(touch x); -config 'a' \"b\" 雪🦊 \u0085\u2028\ufeff\uffff: -");
  const settings = { folder, db: "a -o `touch x` * $HOME.db" };
  const { config, files } = setUp(replicaUrl(s3.port, "hostile/-config.db"), settings);
  await writeRows(config.dbpath, 20);
  expect(await config.timedReplicate(30)).toBe(true);
  expect(files()).toEqual([]);
  expect(rowsIn(await config.restore())).toBe(20);
});

test("a command gets its words as they are", async () => {
  const words = [...FOLDERS, ...NAMES, ...PATHS, "", "a\nb"];
  const { config } = setUp(replicaUrl(s3.port, "hostile/x.db"));
  const script = "process.stdout.write(JSON.stringify(process.argv.slice(1)))";
  const [stdout] = await config.getResultOnTimeout([process.execPath, "-e", script, "--", ...words], 30);
  expect(JSON.parse(stdout)).toEqual(words);
});
