import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import type {
  ConfigS3,
  ContinuousOptions,
  LitestreamUnsupportedError,
  Replication,
} from "../../src/index.ts";
import { startApp } from "../support/app.ts";
import { holdersOf, litestreamOf, startContinuousApp, until } from "../support/continuous.ts";
import { fakeLitestream } from "../support/fake-litestream.ts";
import { type Fault, startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, LITESTREAM, MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { overtimeOf, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

async function replicating(config: ConfigS3, options: Partial<ContinuousOptions> = {}): Promise<Replication> {
  const replication = await config.replicate({ startTimeoutSeconds: 50, ...options });
  onTestFinished(async () => void (await config.delete()));
  return replication;
}

/** How many rows a restore to another folder gives just then; -1 where there is nothing to restore yet. */
async function restorable(s3Url: string): Promise<number> {
  const { config } = setUp(s3Url);
  await config.restore({ ifReplicaExists: true });
  try {
    return rowsIn(config.dbpath);
  } catch (error) {
    if (/no such table/.test(String(error))) return -1;
    throw error;
  }
}

async function faulty() {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  return proxy;
}

test.runIf(MUTE)("a litestream that does not say when it has uploaded is refused", async () => {
  const { config } = setUp(replicaUrl(s3.port, "continuous/mute.db"));
  await writeRows(config.dbpath, 5);
  await expect(config.replicate({ startTimeoutSeconds: 50 })).rejects.toMatchObject({
    code: "LITESTREAM_UNSUPPORTED" satisfies LitestreamUnsupportedError["code"],
    message: expect.stringMatching(/0\.3\.12/),
  });
  expect(holdersOf(config.folder)).toEqual([]);
  expect(await config.timedReplicate(30)).toBe(true);
});

describe.skipIf(MUTE)("while it runs", () => {
  test("rows are in the replica from the first synchronisation on, and each later one soon; stop() proves the last", async () => {
    const { config, files } = setUp(replicaUrl(s3.port, "continuous/runs.db"));
    await writeRows(config.dbpath, 20);
    const replication = await replicating(config);
    expect(await restorable(config.s3)).toBe(20);
    expect(replication.status()).toMatchObject({ running: true, restarts: 0, failingSince: undefined });
    expect(replication.status().lastSync?.getTime()).toBeLessThanOrEqual(Date.now());
    // Out of reach of a terminal's Ctrl-C: signalling a group that the process does not lead fails with ESRCH.
    expect(() => process.kill(-litestreamOf(config.folder), 0)).not.toThrow();
    expect(JSON.stringify(holdersOf(config.folder))).not.toContain(TOKEN);
    await writeRows(config.dbpath, 5);
    await until(async () => (await restorable(config.s3)) === 25);
    await writeRows(config.dbpath, 5);
    expect(await replication.stop({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
    expect(replication.status()).toMatchObject({ running: false });
    expect(files()).toContain("db.sqlite");
    expect(holdersOf(config.folder)).toEqual([]);
    expect(await restorable(config.s3)).toBe(30);
    // And once more.
    const again = await replicating(config);
    await writeRows(config.dbpath, 5);
    expect(await again.stop({ timeoutSeconds: 30, deleteLocal: true })).toMatchObject({ ok: true });
    expect(files()).toEqual([]);
    expect(await restorable(config.s3)).toBe(35);
  });

  test("timedReplicate ends it, and proves as always", async () => {
    const { config, files } = setUp(replicaUrl(s3.port, "continuous/timed.db"));
    await writeRows(config.dbpath, 20);
    const replication = await replicating(config);
    await writeRows(config.dbpath, 5);
    expect(await config.timedReplicate(30)).toBe(true);
    expect(replication.status().running).toBe(false);
    expect(files()).toEqual([]);
    expect(holdersOf(config.folder)).toEqual([]);
    expect(await restorable(config.s3)).toBe(25);
  });

  test("a second call for the database is refused; another process waits for its turn", async () => {
    const { config } = setUp(replicaUrl(s3.port, "continuous/twice.db"));
    await writeRows(config.dbpath, 20);
    await using replication = await replicating(config);
    await expect(config.replicate({ startTimeoutSeconds: 5 })).rejects.toMatchObject({
      code: "ALREADY_REPLICATING",
    });
    const app = startApp({ config, method: "replicateOnce", args: [{ timeoutSeconds: 1 }] });
    expect((await app.ended).outcome.value).toMatchObject({
      reason: "timeout",
      message: expect.stringMatching(/another call, perhaps in another process/),
    });
    expect(replication.status()).toMatchObject({ running: true, failingSince: undefined });
  });

  test("no file descriptor and no timer is left after it, and no secret in the log", async () => {
    const { config, log } = setUp(replicaUrl(s3.port, "continuous/leaks.db"));
    await writeRows(config.dbpath, 20);
    const set = vi.spyOn(globalThis, "setInterval");
    const cleared = vi.spyOn(globalThis, "clearInterval");
    onTestFinished(() => void vi.restoreAllMocks());
    const once = async () => {
      const replication = await replicating(config);
      await replication.stop({ timeoutSeconds: 30 });
    };
    const open = () => readdirSync("/proc/self/fd").length;
    await once();
    const before = open();
    await once();
    // The store's connections in this process take a moment to close.
    await until(() => open() <= before);
    expect(set.mock.results.length).toBeGreaterThan(0);
    for (const { value } of set.mock.results) expect(cleared).toHaveBeenCalledWith(value);
    expect(JSON.stringify(log.lines)).not.toContain(TOKEN);
  });
});

describe.skipIf(MUTE)("it can't begin", () => {
  const cases: [string, Fault | undefined, RegExp][] = [
    ["the store refuses the credentials", { status: 403 }, /^credentials$/],
    ["there is no bucket", { status: 404 }, /^bucket$/],
    ["the store is silent", "stall", /^timeout$/],
    ["the store fails", { status: 503 }, /^(?:unreachable|timeout)$/],
  ];
  test.each(cases)("%s: it rejects in time, and leaves nothing behind", async (name, fault, reason) => {
    const proxy = await faulty();
    proxy.fault = () => fault;
    const { config, files } = setUp(replicaUrl(proxy.port, `continuous/${name.replaceAll(" ", "-")}.db`));
    await writeRows(config.dbpath, 20);
    const { result, overtimeMs } = await overtimeOf(6, () =>
      config.replicate({ startTimeoutSeconds: 6 }).catch((error: unknown) => error),
    );
    expect(result).toMatchObject({ code: "REPLICATION_FAILED", reason: expect.stringMatching(reason) });
    expect(overtimeMs).toBeLessThan(500);
    expect(holdersOf(config.folder)).toEqual([]);
    expect(files()).toContain("db.sqlite");
    proxy.fault = () => undefined;
    expect(await config.timedReplicate(30)).toBe(true);
  });

  test("the store fails at the first upload", async () => {
    const proxy = await faulty();
    proxy.fault = ({ method }) => (method === "PUT" ? { status: 403 } : undefined);
    const { config } = setUp(replicaUrl(proxy.port, "continuous/put.db"));
    await writeRows(config.dbpath, 20);
    await expect(config.replicate({ startTimeoutSeconds: 8 })).rejects.toMatchObject({
      reason: "credentials",
    });
    expect(holdersOf(config.folder)).toEqual([]);
  });

  test("there is no store, or no database", async () => {
    const { config } = setUp(replicaUrl(1, "continuous/unreachable.db"));
    await expect(config.replicate({ startTimeoutSeconds: 3 })).rejects.toMatchObject({
      code: "DATABASE_NOT_FOUND",
    });
    await writeRows(config.dbpath, 20);
    await expect(config.replicate({ startTimeoutSeconds: 3 })).rejects.toMatchObject({
      reason: expect.stringMatching(/^(?:unreachable|timeout)$/),
    });
    await expect(config.replicate({ startTimeoutSeconds: Number.NaN })).rejects.toMatchObject({
      code: "OPTION_INVALID",
    });
    expect(holdersOf(config.folder)).toEqual([]);
  });
});

describe.skipIf(MUTE)("what dies", () => {
  test("litestream: it is started again, counted, and goes on", async () => {
    const { config } = setUp(replicaUrl(s3.port, "continuous/killed.db"));
    await writeRows(config.dbpath, 20);
    const heard: string[] = [];
    await using replication = await replicating(config, {
      onFailing: () => heard.push("failing"),
      onRecovered: () => heard.push("recovered"),
    });
    process.kill(litestreamOf(config.folder), "SIGKILL");
    await until(() => heard.length > 0);
    expect(replication.status().failingSince).toBeInstanceOf(Date);
    expect(replication.status().lastError).toMatch(/SIGKILL/);
    await writeRows(config.dbpath, 5);
    await until(() => heard.length > 1);
    expect(heard).toEqual(["failing", "recovered"]);
    expect(replication.status()).toMatchObject({ running: true, restarts: 1, failingSince: undefined });
    await writeRows(config.dbpath, 5);
    await until(async () => (await restorable(config.s3)) === 30);
  });

  test.skipIf(IS_0_3)(
    "litestream, which leaves damaged files: it begins anew, and that is no other machine",
    async () => {
      const { config } = setUp(replicaUrl(s3.port, "continuous/damaged.db"));
      await writeRows(config.dbpath, 20);
      const replication = await replicating(config);
      for (const rows of [25, 30, 35]) {
        await writeRows(config.dbpath, 5);
        await until(async () => (await restorable(config.s3)) === rows);
      }
      process.kill(litestreamOf(config.folder), "SIGSTOP");
      const level0 = join(config.folder, ".db.sqlite-litestream", "ltx", "0");
      for (const name of readdirSync(level0)) truncateSync(join(level0, name), 200);
      await writeRows(config.dbpath, 5);
      process.kill(litestreamOf(config.folder), "SIGKILL");
      await until(() => replication.status().restarts > 0 && replication.status().failingSince === undefined);
      expect(await replication.stop({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
      expect(await restorable(config.s3)).toBe(40);
    },
  );

  test.skipIf(IS_0_3)(
    "litestream, which finds its files damaged after its copy is up: that copy is no other machine's",
    async () => {
      const url = replicaUrl(s3.port, "continuous/copied.db");
      const { config: before } = setUp(url);
      await writeRows(before.dbpath, 20);
      expect(await before.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).toMatchObject({ ok: true });
      // Once, a real upload of the whole copy, and then the complaint.
      const once = `[ -e "$0.done" ] && exec ${LITESTREAM} "$@"; touch "$0.done"; ${LITESTREAM} "$@"; echo "Error: ltx verification failed: checksum mismatch" >&2; exit 1`;
      const litestream = fakeLitestream(once, "replicate -once -force-snapshot");
      const { config } = setUp(url, { folder: before.folder }, { litestream });
      await writeRows(config.dbpath, 5);
      const replication = await replicating(config);
      expect(await replication.stop({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
      expect(await restorable(url)).toBe(25);
    },
  );

  test.each(["kill", "exit", "idle"] as const)(
    "the app (%s): litestream synchronises a last time, and ends; the next boot waits for that",
    async (how) => {
      const { config } = setUp(replicaUrl(s3.port, `continuous/app-${how}.db`));
      await writeRows(config.dbpath, 20);
      const app = await startContinuousApp(config);
      expect(await app.write(70)).toBe(90);
      await app[how]();
      await until(() => holdersOf(config.folder).length === 0);
      expect(await restorable(config.s3)).toBe(90);
      expect(await config.timedReplicate(30)).toBe(true);
      expect(await restorable(config.s3)).toBe(90);
    },
  );

  test("the app, while its litestream can't upload: a boot on the same disk waits until it has ended", async () => {
    const proxy = await faulty();
    const { config } = setUp(replicaUrl(proxy.port, "continuous/orphan.db"));
    await writeRows(config.dbpath, 20);
    const app = await startContinuousApp(config);
    let heal = () => {};
    const healed = new Promise<void>((resolve) => {
      heal = resolve;
    });
    proxy.fault = ({ method }) => (method === "PUT" ? { after: healed } : undefined);
    const put = proxy.nextRequest((request) => request.startsWith("PUT"));
    await app.write(5);
    await put;
    await app.kill();
    expect(litestreamOf(config.folder)).toBeGreaterThan(0);
    expect(await config.replicateOnce({ timeoutSeconds: 0.5, keepLocal: true })).toMatchObject({
      message: expect.stringMatching(/another call, perhaps in another process/),
    });
    proxy.fault = () => undefined;
    heal();
    expect(await config.timedReplicate(50)).toBe(true);
    expect(await restorable(config.s3)).toBe(25);
    expect(holdersOf(config.folder)).toEqual([]);
  });

  test("both: the next life on the disk has every row, and proves it", async () => {
    const { config } = setUp(replicaUrl(s3.port, "continuous/both.db"));
    await writeRows(config.dbpath, 20);
    const app = await startContinuousApp(config);
    await app.write(70);
    process.kill(litestreamOf(config.folder), "SIGKILL");
    await app.kill();
    await until(() => holdersOf(config.folder).length === 0);
    await config.restore({ ifDbNotExists: true });
    expect(rowsIn(config.dbpath)).toBe(90);
    expect(await config.timedReplicate(30)).toBe(true);
    expect(await restorable(config.s3)).toBe(90);
  });
});

describe.skipIf(MUTE)("the store", () => {
  test.each([{ status: 503 }, "stall"] as const)(
    "%o: it shows as failing, and has recovered with every row once the store has",
    { timeout: 150_000 },
    async (fault) => {
      const proxy = await faulty();
      const { config } = setUp(replicaUrl(proxy.port, `continuous/store-${typeof fault}.db`));
      await writeRows(config.dbpath, 20);
      const heard: string[] = [];
      await using replication = await replicating(config, {
        onFailing: (message) => heard.push(message),
        onRecovered: () => heard.push("recovered"),
      });
      proxy.fault = () => fault;
      await writeRows(config.dbpath, 5);
      await until(() => heard.length > 0);
      expect(replication.status()).toMatchObject({ running: true, failingSince: expect.any(Date) });
      proxy.fault = () => undefined;
      await writeRows(config.dbpath, 5);
      await until(() => heard.length > 1);
      expect(heard[1]).toBe("recovered");
      expect(replication.status().failingSince).toBeUndefined();
      await until(async () => (await restorable(config.s3)) === 30);
    },
  );
});

// A history that the lives found, on 0.5: the next upload of the first machine took the place of the other's.
test.skipIf(MUTE)(
  "another machine that writes meanwhile is noticed while it runs; nothing goes up over what that has written",
  { timeout: 120_000 },
  async () => {
    const { config } = setUp(replicaUrl(s3.port, "continuous/rival.db"));
    await writeRows(config.dbpath, 10);
    const onFailing = vi.fn();
    const replication = await replicating(config, { onFailing });
    const other = setUp(config.s3);
    await other.config.restore();
    await writeRows(other.config.dbpath, 7);
    expect(await other.config.timedReplicate(30)).toBe(true);
    await until(() => onFailing.mock.calls.length > 0);
    expect(onFailing).toHaveBeenCalledWith(expect.stringMatching(/another machine has written/));
    expect(replication.status().failingSince).toBeDefined();
    await until(() => holdersOf(config.folder).every(({ line }) => !/ replicate /.test(line)));

    await writeRows(config.dbpath, 10);
    const stopped = await replication.stop({ timeoutSeconds: 30, deleteLocal: true });
    expect(stopped).toMatchObject({ ok: false, reason: "replica-moved" });
    expect(rowsIn(config.dbpath)).toBe(20);
    expect(await restorable(config.s3)).toBe(17);
    await expect(config.restore({ ifDbNotExists: true })).rejects.toMatchObject({ reason: "replica-moved" });
    const takenOver = await config.replicateOnce({ timeoutSeconds: 30, takeOver: true, keepLocal: true });
    expect(takenOver).toMatchObject({ ok: true });
    expect(await restorable(config.s3)).toBe(20);
  },
);
