import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { startScript } from "../support/script.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn } from "../support/sqlite.ts";

let s3: S3;
let second: S3;
beforeAll(async () => {
  [s3, second] = await Promise.all([startS3(), startS3()]);
});
afterAll(() => Promise.all([s3.stop(), second.stop()]));

const ALIVE = "setInterval(() => {}, 60_000);";
const errors = (lines: { level?: number }[]) =>
  lines.filter(({ level }) => level !== undefined && level > 40);

/** A second copy of the built package, with the same dependencies. */
function copyOfThePackage(): string {
  const folder = tempFolder();
  const copy = join(folder, "package");
  mkdirSync(copy);
  cpSync("dist", join(copy, "dist"), { recursive: true });
  writeFileSync(join(copy, "package.json"), JSON.stringify({ type: "module" }));
  symlinkSync(resolve("node_modules"), join(copy, "node_modules"));
  return pathToFileURL(join(copy, "dist/index.js")).href;
}

test("two copies of the package are one shutdown: neither ends the process before the other's close and proof", async () => {
  const [fast, slow] = [setUp(replicaUrl(s3.port, "copies/1.db")), setUp(replicaUrl(s3.port, "copies/2.db"))];
  const app = startScript(
    [fast.config, slow.config],
    `${ALIVE}
    const { ConfigS3: Copy } = await import(${JSON.stringify(copyOfThePackage())});
    if (Copy === ConfigS3) throw new Error("this is the same copy");
    const second = new Copy(settings[1], options);
    const dbs = [open(config, 20), open(second, 20)];
    config.onShutdown({ timeoutSeconds: 50, close: () => dbs[0].close() });
    let end;
    process.on("SIGUSR2", () => end());
    second.onShutdown({
      timeoutSeconds: 50,
      close: async () => {
        say({ closing: true });
        await new Promise((resolve) => { end = resolve; });
        dbs[1].close();
      },
    });
    say({ ready: true, listeners: ["SIGTERM", "SIGINT", "exit"].map((name) => process.listenerCount(name)) });`,
  );
  const before = startScript([], 'say({ listeners: ["exit"].map((name) => process.listenerCount(name)) });');
  const [exits] = (await before.event("listeners")).listeners as number[];
  expect((await app.event("ready")).listeners).toEqual([1, 1, (exits ?? 0) + 1]);
  app.kill("SIGTERM");
  await app.event("closing");
  app.kill("SIGUSR2");
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect([fast.files(), slow.files()]).toEqual([[], []]);
  for (const { config } of [fast, slow]) expect(rowsIn(await setUp(config.s3).config.restore())).toBe(20);
});

test("one database, and the same URL in two stores: both have it before it goes", async () => {
  const folder = tempFolder();
  const url = "s3://backups/copies/both.db";
  const stores = [s3, second].map(({ port }) => ({
    endpoint: `http://127.0.0.1:${port}`,
    region: "us-east-1",
  }));
  const both = stores.map((store) => setUp(url, { ...store, folder }));
  const app = startScript(
    both.map(({ config }) => config),
    `${ALIVE}
    const db = open(config, 20);
    for (const each of configs) each.onShutdown({ timeoutSeconds: 50, close: () => db.close() });
    say({ ready: true });`,
  );
  await app.event("ready");
  app.kill("SIGTERM");
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect(errors(app.lines)).toEqual([]);
  expect(both[0]?.files()).toEqual([]);
  for (const store of stores) expect(rowsIn(await setUp(url, store).config.restore())).toBe(20);
});

test.each([[0], [1]])(
  "the store number %i of the two fails: the database stays, exit code 1",
  async (bad) => {
    const folder = tempFolder();
    const url = `s3://backups/copies/one-of-two-${bad}.db`;
    const { config } = setUp(url, { endpoint: `http://127.0.0.1:${s3.port}`, region: "us-east-1", folder });
    const app = startScript(
      [config],
      `${ALIVE}
    const db = open(config, 20);
    const none = new ConfigS3({ ...settings[0], endpoint: "http://127.0.0.1:1" }, { ...options, litestream: "/no/litestream" });
    const configs2 = [config];
    configs2.splice(${bad}, 0, none);
    for (const each of configs2) each.onShutdown({ timeoutSeconds: 50, close: () => db.close() });
    say({ ready: true });`,
    );
    await app.event("ready");
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(errors(app.lines)).toHaveLength(1);
    expect(app.lines.some(({ msg }) => msg === "replicated; the local database stays")).toBe(true);
    expect(rowsIn(config.dbpath)).toBe(20);
  },
);
