import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { startScript } from "../support/script.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn } from "../support/sqlite.ts";

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

function newUrl(port = s3.port): string {
  paths += 1;
  return replicaUrl(port, `gone/${paths}.db`);
}

const ALIVE = "setInterval(() => {}, 60_000);";
const BOOT = "await config.restore({ ifDbNotExists: true, ifReplicaExists: true });";
type Lines = { level?: number; msg: string }[];
const errors = (lines: Lines) => lines.filter(({ level }) => level === 50).map(({ msg }) => msg);

describe("no database when its turn comes is no success", () => {
  test("restore() has ended, and the app opens another file: an error, exit code 1", async () => {
    const { config } = setUp(newUrl());
    const other = join(config.folder, "dev.db");
    const app = startScript(
      [config],
      `${ALIVE} let db;
      config.onShutdown({ timeoutSeconds: 50, close: () => db?.close() });
      ${BOOT}
      db = open({ dbpath: ${JSON.stringify(other)} }, 20);
      say({ ready: true });`,
    );
    await app.event("ready");
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    const there = `there is no database at ${config.dbpath}, although restore() has ended`;
    expect(errors(app.lines)).toEqual([expect.stringContaining(there)]);
    expect(rowsIn(other)).toBe(20);
  });

  test("somebody has removed it since onShutdown(): an error, exit code 1", async () => {
    const { config } = setUp(newUrl());
    const app = startScript(
      [config],
      `${ALIVE} const db = open(config, 20);
      config.onShutdown({ timeoutSeconds: 50, close: () => db.close() });
      say({ ready: true });`,
    );
    await app.event("ready");
    for (const end of ["", "-wal", "-shm"]) rmSync(config.dbpath + end, { force: true });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    const there = `there is no database at ${config.dbpath} any more`;
    expect(errors(app.lines)).toEqual([expect.stringContaining(there)]);
  });

  test("nor is it where the app is ended by something else", async () => {
    const { config } = setUp(newUrl());
    const app = startScript(
      [config],
      `open(config, 20).close();
      config.onShutdown({ timeoutSeconds: 50 });
      process.on("SIGUSR2", () => process.exit(0));
      say({ ready: true });
      ${ALIVE}`,
    );
    await app.event("ready");
    rmSync(config.dbpath);
    app.kill("SIGUSR2");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(errors(app.lines)).toEqual([expect.stringContaining("there is no database")]);
  });
});

describe("as it should be", () => {
  test.each([
    ["delete()", "await config.delete();"],
    ["timedReplicate()", "say({ ok: await config.timedReplicate(50) });"],
  ])("the app itself has removed it, by %s: exit code 0", async (_, removal) => {
    const { config } = setUp(newUrl());
    const app = startScript(
      [config],
      `${ALIVE} ${BOOT}
      open(config, 20).close();
      config.onShutdown({ timeoutSeconds: 50 });
      ${removal}
      say({ ready: true });`,
    );
    await app.event("ready");
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(errors(app.lines)).toEqual([]);
  });

  test("another process has proven and removed it after the end of this one's close(): exit code 0", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    let release = () => {};
    const after = new Promise<void>((resolve) => {
      release = resolve;
    });
    proxy.fault = ({ method }) => (method === "PUT" || method === "POST" ? { after } : undefined);
    const { config, files } = setUp(newUrl(proxy.port));
    const app = startScript(
      [config],
      `${ALIVE} open(config, 20).close();
      config.onShutdown({ timeoutSeconds: 50 });
      say({ ready: true });`,
    );
    await app.event("ready");
    const proof = config.timedReplicate(50);
    await proxy.nextRequest((request) => /^(?:PUT|POST)/.test(request));
    app.kill("SIGTERM");
    await app.logged(/another call, perhaps in another process, has this database/);
    release();
    expect(await proof).toBe(true);
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(files()).toEqual([]);
  });
});
