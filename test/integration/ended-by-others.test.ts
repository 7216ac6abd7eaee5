import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { startScript } from "../support/script.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

function newUrl(): string {
  paths += 1;
  return replicaUrl(s3.port, `ended/${paths}.db`);
}

const ENDED = /^the process was ended by something else before the proof/;
type Lines = { level?: number; msg: string }[];
const accusations = (lines: Lines) => lines.filter(({ msg }) => ENDED.test(msg));
const ALIVE = "setInterval(() => {}, 60_000);";

describe("something else ends the process before the proof: the log says so, and it is never exit code 0", () => {
  const REGISTER = "config.onShutdown({ timeoutSeconds: 50, close: () => say({ closing: true }) });";
  const HANGS =
    "config.onShutdown({ timeoutSeconds: 50, close: () => new Promise(() => say({ closing: true })) });";
  const EXIT_143 = 'process.on("SIGTERM", () => process.exit(143));';
  test.each<[how: string, script: string, signal: boolean, code: number]>([
    ["a handler from before, at once", `${EXIT_143} ${REGISTER}`, true, 143],
    ["a handler from later, at once", `${REGISTER} ${EXIT_143}`, true, 143],
    [
      "an async handler, with exit code 0, while close() goes on",
      `${HANGS} process.on("SIGTERM", async () => { await new Promise((done) => setTimeout(done, 50)); process.exit(0); });`,
      true,
      1,
    ],
    ["process.exit(0), without any signal", `${REGISTER} setImmediate(() => process.exit(0));`, false, 1],
    [
      "process.exit(), after a handler of 'exit' that was there before and ends it as well",
      `process.on("exit", () => process.exit()); ${REGISTER} setImmediate(() => process.exit());`,
      false,
      1,
    ],
    [
      "an exception that nobody catches",
      `${REGISTER} setImmediate(() => { throw new Error("x"); });`,
      false,
      1,
    ],
    ["a code of its own", `${REGISTER} process.exitCode = 3; setImmediate(() => process.exit());`, false, 3],
  ])("%s", async (_, script, signal, code) => {
    const { config } = setUp(newUrl());
    const app = startScript([config], `${ALIVE} open(config, 20); ${script} say({ ready: true });`);
    await app.event("ready");
    if (signal) app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code, signal: null });
    expect(accusations(app.lines)).toEqual([expect.objectContaining({ level: 50, dbpath: config.dbpath })]);
    expect(accusations(app.lines)[0]?.msg).toContain(
      `${config.dbpath} is not in ${config.s3} is on this disk`,
    );
    expect(JSON.stringify(app.lines)).not.toContain(TOKEN);
    expect(rowsIn(config.dbpath)).toBe(20);
  });

  test("an app that has nothing left to do, with two databases: a line for each, also on stderr where the logger is not the library's", async () => {
    const [own, other] = [setUp(newUrl()).config, setUp(newUrl()).config];
    const app = startScript(
      [own, other],
      `const lost = () => {};
      const logger = { debug: lost, info: lost, warn: lost, error: lost };
      const other = new ConfigS3(settings[1], { ...options, logger });
      for (const each of [config, other, other]) each.onShutdown({ timeoutSeconds: 50 });
      for (const each of [config, other]) open(each, 20).close();`,
    );
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(accusations(app.lines)).toMatchObject([{ dbpath: own.dbpath }, { dbpath: other.dbpath }]);
  });

  test("what was committed after a proof is not proven", async () => {
    const { config } = setUp(newUrl());
    const app = startScript(
      [config],
      `const db = open(config, 20);
      config.onShutdown({ timeoutSeconds: 50 });
      say(await config.replicateOnce({ timeoutSeconds: 50, keepLocal: true }));
      db.write();
      process.exit(0);`,
    );
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(app.events).toMatchObject([{ ok: true }]);
    expect(accusations(app.lines)).toHaveLength(1);
  });
});

describe("nothing is said, and exit code 0 stays", () => {
  test("where the database was never opened, the call was taken back, or the database was deleted by the app", async () => {
    const configs = Array.from({ length: 3 }, () => setUp(newUrl()).config);
    const app = startScript(
      configs,
      `const [never, back, deleted] = configs;
      never.onShutdown({ timeoutSeconds: 50 });
      const remove = back.onShutdown({ timeoutSeconds: 50 });
      open(back, 20).close();
      remove();
      open(deleted, 20).close();
      deleted.onShutdown({ timeoutSeconds: 50 });
      await deleted.delete();`,
    );
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(accusations(app.lines)).toEqual([]);
  });

  test("where everything is proven: gone by timedReplicate(), kept by replicateOnce(), or restored and never opened", async () => {
    const restored = setUp(newUrl()).config;
    await writeRows(restored.dbpath, 20);
    expect(await restored.timedReplicate(50)).toBe(true);
    const configs = [restored, setUp(newUrl()).config, setUp(newUrl()).config];
    const app = startScript(
      configs,
      `const [restored, kept, gone] = configs;
      for (const each of configs) each.onShutdown({ timeoutSeconds: 50 });
      await restored.restore();
      const db = open(kept, 20);
      open(gone, 20).close();
      say(await kept.replicateOnce({ timeoutSeconds: 50, keepLocal: true }));
      say({ ok: await gone.timedReplicate(50) });
      process.exit(0);`,
    );
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(app.events).toMatchObject([{ ok: true }, { ok: true }]);
    expect(accusations(app.lines)).toEqual([]);
  });

  test("by the library's own end without a proof, which has said why", async () => {
    const { config } = setUp(newUrl());
    const app = startScript(
      [config],
      `${ALIVE} open(config, 20).close();
      const none = new ConfigS3(settings[0], { ...options, litestream: "/no/litestream" });
      none.onShutdown({ timeoutSeconds: 50 });
      say({ ready: true });`,
    );
    await app.event("ready");
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(accusations(app.lines)).toEqual([]);
  });
});
