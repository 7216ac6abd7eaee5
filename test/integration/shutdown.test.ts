import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { ConfigS3 } from "../../src/index.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { startHookedApp } from "../support/shutdown-app.ts";
import { rowsIn } from "../support/sqlite.ts";

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

function newUrl(port = s3.port): string {
  paths += 1;
  return replicaUrl(port, `shutdown/${paths}.db`);
}

/** Boots on an empty folder and counts, past any proxy. */
async function rowsInReplica(config: ConfigS3): Promise<number> {
  const { pathname } = new URL(config.s3);
  return rowsIn(await setUp(replicaUrl(s3.port, pathname.slice(1))).config.restore());
}

/** A store whose uploads stall until `release`. */
async function startStalledStore(): Promise<FaultProxy & { release(): void }> {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  proxy.fault = ({ method }) => (method === "PUT" || method === "POST" ? { after: released } : undefined);
  return Object.assign(proxy, { release });
}

/** Signals that come nearer to each other than this count as one. */
const MOMENT_MS = 600;

describe("on a signal", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "%s: closes, replicates, and ends with exit code 0 although the app would live on",
    async (signal) => {
      const { config, files } = setUp(newUrl());
      const app = await startHookedApp({
        databases: [{ config }],
        hooks: [{ timeoutSeconds: 50, close: "all" }],
      });
      app.kill(signal);
      expect(await app.ended).toEqual({ code: 0, signal: null });
      expect(files()).toEqual([]);
      expect(await rowsInReplica(config)).toBe(20);
      const words = app.lines.map(({ msg }) => msg);
      expect(words[0]).toBe(`${signal}: closing and replicating`);
      expect(words.at(-1)).toBe("replicated; the local database is deleted");
      await app.event("closing");
    },
  );

  test("without close, and with keepLocal: the database stays, exit code 0", async () => {
    const { config } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, keepLocal: true }],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(app.lines.at(-1)?.msg).toBe("replicated; the local database stays");
    expect([rowsIn(config.dbpath), await rowsInReplica(config)]).toEqual([20, 20]);
  });

  test("an exit code that the app has set is not replaced by 0", async () => {
    const { config, files } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
      exitCode: 3,
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 3, signal: null });
    expect(files()).toEqual([]);
  });

  test("no local database: nothing to replicate, says so, exit code 0, and needs no litestream for it", async () => {
    const { config } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config, rows: undefined, litestream: "/no/litestream" }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(app.lines.map(({ msg }) => msg)).toEqual([
      "SIGTERM: closing and replicating",
      "there is no local database, and so nothing to replicate",
    ]);
  });

  test("in the middle of restore(): ends at once with exit code 0, and so does litestream", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config, files } = setUp(newUrl(proxy.port));
    proxy.fault = () => "stall";
    const app = await startHookedApp({
      databases: [{ config, rows: undefined }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
      restore: true,
    });
    await proxy.nextRequest(() => true);
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    await expect.poll(() => processesWith(config.folder), { timeout: 50_000 }).toEqual([]);
    expect(files()).toEqual([]);
  });

  test("what can't be replicated gives exit code 1 and stays: no litestream", async () => {
    const { config } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config, litestream: "/no/litestream" }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(app.lines.at(-1)).toMatchObject({ level: 50, msg: expect.stringContaining("/no/litestream") });
    expect(rowsIn(config.dbpath)).toBe(20);
  });

  test("the whole budget is over: exit code 1, the database stays", async () => {
    const store = await startStalledStore();
    const { config } = setUp(newUrl(store.port));
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 3, close: "all" }],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(app.lines.at(-1)).toMatchObject({ level: 50, reason: "timeout" });
    expect(rowsIn(config.dbpath)).toBe(20);
  });
});

describe("close() does not end well: the proof goes on, the database stays, exit code 1", () => {
  test("it throws: the log says why, without the secret; what is written after the proof is on the disk", async () => {
    const store = await startStalledStore();
    const { config } = setUp(newUrl());
    const slow = setUp(newUrl(store.port)).config;
    const app = await startHookedApp({
      databases: [{ config }, { config: slow }],
      hooks: [
        { timeoutSeconds: 50, close: "throws" },
        { timeoutSeconds: 50, database: 1 },
      ],
    });
    app.kill("SIGTERM");
    await app.logged(/^replicated/);
    expect(await rowsInReplica(config)).toBe(20);
    app.kill("SIGUSR2");
    await app.event("wrote");
    store.release();
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(rowsIn(config.dbpath)).toBe(21);
    const error = app.lines.find(({ msg }) => msg.startsWith("close() failed"));
    expect(error).toMatchObject({ level: 50, dbpath: config.dbpath });
    expect(error?.error).toContain("Error: the server is not running, says [redacted]\n    at ");
    expect(JSON.stringify(app.lines)).not.toContain(TOKEN);
  });

  test("it hangs: after half of the time the log says so", async () => {
    const { config } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 12, close: "hangs" }],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(app.lines.slice(1).map(({ level, msg }) => [level, msg])).toEqual([
      [50, expect.stringMatching(/^close\(\) has not ended within 6 s, /)],
      [30, "replicating"],
      [30, "replicated; the local database stays"],
    ]);
    expect([rowsIn(config.dbpath), await rowsInReplica(config)]).toEqual([20, 20]);
  });
});

test("a close() that holds up the event loop past the deadline leaves the proof half of the time", async () => {
  const { config } = setUp(newUrl());
  const app = await startHookedApp({
    databases: [{ config }],
    hooks: [
      { timeoutSeconds: 12, close: "blocks", ms: 12_500 },
      { timeoutSeconds: 12, close: "all" },
    ],
  });
  app.kill("SIGTERM");
  await app.ended;
  expect(app.lines.at(-1)?.msg).toMatch(/^replicated/);
  expect(await rowsInReplica(config)).toBe(20);
});

describe("further signals", () => {
  test("a second Ctrl-C says what goes on and for how long at most, and cuts nothing short", async () => {
    const store = await startStalledStore();
    const { config, files } = setUp(newUrl(store.port));
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    app.kill("SIGINT");
    await app.logged(/^replicating/);
    await sleep(MOMENT_MS);
    app.kill("SIGINT");
    const { level, msg } = await app.logged(/again/);
    expect(level).toBe(40);
    expect(msg).toMatch(
      /^SIGINT again: still replicating, for [345]\d s more at most\. Ctrl-C once more ends it /,
    );
    store.release();
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(files()).toEqual([]);
    expect(await rowsInReplica(config)).toBe(20);
  });

  test("a third one ends the process at once; the database stays, litestream ends, the next call is true", async () => {
    const store = await startStalledStore();
    const { config } = setUp(newUrl(store.port));
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    app.kill("SIGINT");
    await store.nextRequest((request) => /^(?:PUT|POST)/.test(request));
    await sleep(MOMENT_MS);
    app.kill("SIGINT");
    await app.logged(/again/);
    await sleep(MOMENT_MS);
    app.kill("SIGINT");
    expect(await app.ended).toEqual({ code: 130, signal: null });
    expect(app.lines.at(-1)).toMatchObject({ level: 50, dbpath: config.dbpath });
    expect(app.lines.at(-1)?.msg).toMatch(
      /^SIGINT: ended before the proof\. .* is on this disk alone: keep it/,
    );
    await expect.poll(() => processesWith(config.folder), { timeout: 50_000 }).toEqual([]);
    store.release();
    expect(rowsIn(config.dbpath)).toBe(20);
    expect(await config.timedReplicate(50)).toBe(true);
    expect(await rowsInReplica(config)).toBe(20);
  });

  test("SIGTERM, however often, cuts nothing short: a program that means it sends SIGKILL", async () => {
    const store = await startStalledStore();
    const { config, files } = setUp(newUrl(store.port));
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    app.kill("SIGTERM");
    await app.logged(/^replicating/);
    const again = () => app.lines.filter(({ msg }) => msg.startsWith("SIGTERM again")).length;
    for (const count of [1, 2]) {
      await sleep(MOMENT_MS);
      app.kill("SIGTERM");
      await expect.poll(again, { timeout: 50_000 }).toBe(count);
    }
    store.release();
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(files()).toEqual([]);
  });

  test("signals within a moment are one, as npm sends them for one Ctrl-C", async () => {
    const { config, files } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [{ timeoutSeconds: 50, close: "all" }],
    });
    for (const signal of ["SIGINT", "SIGTERM"] as const) app.kill(signal);
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(app.lines.filter(({ level }) => level > 30)).toEqual([]);
    expect(files()).toEqual([]);
  });
});

describe("several", () => {
  test("databases: one handler each; what is proven goes, what is not stays, exit code 1", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = () => ({ status: 403 });
    const good = setUp(newUrl());
    const bad = setUp(newUrl(proxy.port));
    const app = await startHookedApp({
      databases: [{ config: good.config }, { config: bad.config }],
      hooks: [
        { timeoutSeconds: 50, close: "all" },
        { timeoutSeconds: 50, database: 1 },
      ],
    });
    expect(app.listeners).toEqual([1, 1]);
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 1, signal: null });
    expect(app.lines.find(({ level }) => level === 50)).toMatchObject({ reason: "credentials" });
    expect(good.files()).toEqual([]);
    expect(await rowsInReplica(good.config)).toBe(20);
    expect(rowsIn(bad.config.dbpath)).toBe(20);
  });

  test("calls for one database: every close, one proof", async () => {
    const { config, files } = setUp(newUrl());
    const app = await startHookedApp({
      databases: [{ config }],
      hooks: [
        { timeoutSeconds: 50, close: "all" },
        { timeoutSeconds: 40, close: "all" },
      ],
    });
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(app.lines.filter(({ msg }) => msg === "replicating")).toHaveLength(1);
    expect(app.lines[0]).toMatchObject({ timeoutSeconds: 40 });
    expect(files()).toEqual([]);
    await app.event("closing");
  });

  test("one of them removed: the other one is replicated", async () => {
    const [kept, removed] = [setUp(newUrl()), setUp(newUrl())];
    const app = await startHookedApp({
      databases: [{ config: kept.config }, { config: removed.config }],
      hooks: [
        { timeoutSeconds: 50, close: "all" },
        { timeoutSeconds: 50, database: 1, close: "throws" },
      ],
      remove: [1],
    });
    expect(app.listeners).toEqual([1, 1]);
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: 0, signal: null });
    expect(kept.files()).toEqual([]);
    expect(rowsIn(removed.config.dbpath)).toBe(20);
  });

  test("all of them removed: the signal ends the process as if there had never been one", async () => {
    const { config } = setUp(newUrl());
    const hook = { timeoutSeconds: 50, close: "all" } as const;
    const app = await startHookedApp({ databases: [{ config }], hooks: [hook, hook], remove: [0, 1, 0] });
    expect(app.listeners).toEqual([0, 0]);
    app.kill("SIGTERM");
    expect(await app.ended).toEqual({ code: null, signal: "SIGTERM" });
    expect(existsSync(config.dbpath)).toBe(true);
  });
});

test("removed in the middle of it, as by a close(): the next signal ends nothing all the same", async () => {
  const store = await startStalledStore();
  const { config, files } = setUp(newUrl(store.port));
  const app = await startHookedApp({
    databases: [{ config }],
    hooks: [
      { timeoutSeconds: 50, close: "all" },
      { timeoutSeconds: 50, close: "removes" },
    ],
  });
  app.kill("SIGTERM");
  await app.logged(/^replicating/);
  await sleep(MOMENT_MS);
  app.kill("SIGTERM");
  await Promise.race([app.logged(/again/), app.ended]);
  store.release();
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect(files()).toEqual([]);
});

test("another one's handler runs beside it", async () => {
  const { config, files } = setUp(newUrl());
  const app = await startHookedApp({
    databases: [{ config }],
    hooks: [{ timeoutSeconds: 50, close: "all" }],
    other: true,
  });
  expect(app.listeners).toEqual([2, 1]);
  app.kill("SIGTERM");
  expect(await app.event("other")).toEqual({ other: "SIGTERM" });
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect(files()).toEqual([]);
});

test("onShutdown() after the signal: the log and exit code 1 say that its database is not replicated", async () => {
  const { config } = setUp(newUrl());
  const app = await startHookedApp({
    databases: [{ config }],
    hooks: [{ timeoutSeconds: 50, close: "late" }],
  });
  app.kill("SIGTERM");
  expect(await app.ended).toEqual({ code: 1, signal: null });
  expect(app.lines.find(({ level }) => level === 50)?.msg).toMatch(/^onShutdown\(\) comes after the signal/);
});
