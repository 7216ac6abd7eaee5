import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { withDatabaseLock } from "../../src/database-lock.ts";
import type { ConfigS3 } from "../../src/index.ts";
import { PLACES } from "../../src/litestream/limit.ts";
import { type Fault, type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { memoryLogger, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
let proxy: FaultProxy;
beforeAll(async () => {
  s3 = await startS3();
  proxy = await startFaultProxy(s3.port);
});
afterAll(async () => {
  await proxy.stop();
  await s3.stop();
});
beforeEach(() => {
  proxy.fault = () => undefined;
});

/** What a request is about: the replica's path, as `many/KIND-NUMBER`. */
const nameIn = ({ url = "" }: Pick<IncomingMessage, "url">) =>
  /many\/\w+-\d+/.exec(decodeURIComponent(url))?.[0] ?? "";

type Outcome = {
  value?: unknown;
  error?: { code: string; reason?: string; message: string };
};
type Batch = { outcomes: Outcome[]; children: number; descriptors: number };
type Call = { config: ConfigS3; method: "replicateOnce" | "restore"; args: unknown[] };

/** Room for the lock of each database, the limit's litestreams, three each, and the look whether there is room; not for 50 litestreams. */
const FREE_DESCRIPTORS = 146;
const DESCRIPTORS = 256;

/** An app with many databases and few file descriptors. */
function startManyApps() {
  const script = new URL("../support/many-apps.mjs", import.meta.url).pathname;
  const command = 'ulimit -n "$1" && shift && exec "$@"';
  const limits = [String(DESCRIPTORS), String(FREE_DESCRIPTORS)];
  const node = [process.execPath, script, LITESTREAM, ...limits];
  const child = spawn("/bin/sh", ["-c", command, "sh", String(DESCRIPTORS), ...node], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** Makes all calls at the same time. */
    run: async (calls: Call[]): Promise<Batch> => {
      const batch = calls.map(({ config: { key, token, s3, folder, db }, ...call }) => ({
        settings: { key, token, s3, folder, db },
        ...call,
      }));
      child.stdin.write(`${JSON.stringify(batch)}\n`);
      const { value } = await lines.next();
      if (value === undefined) throw new Error("the app has ended");
      return JSON.parse(value);
    },
    end: async () => {
      const exited = once(child, "exit");
      child.stdin.end();
      expect(await exited).toEqual([0, null]);
    },
  };
}

/** Runs the work for each, a few at a time: each is a process. */
async function forEach<T>(items: readonly T[], work: (item: T, index: number) => Promise<unknown>) {
  const waiting = [...items.entries()];
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) await work(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

describe("50 databases in one process", () => {
  const KINDS = { stalled: 4, refused: 3, wrong: 2, missing: 1, healthy: 40 } as const;
  type Kind = keyof typeof KINDS;
  const FAULTS: Partial<Record<string, Fault>> = { stalled: "stall", refused: { status: 403 } };

  test("some of which fail: each gets its own answer, and no more than the limit run at a time", async () => {
    const apps = (Object.keys(KINDS) as Kind[]).flatMap((kind) =>
      Array.from({ length: KINDS[kind] }, (_, i) => ({
        kind,
        rows: i + 1,
        ...setUp(replicaUrl(proxy.port, `many/${kind}-${i}.db`)),
      })),
    );
    await forEach(apps, async ({ kind, config, rows }) => {
      if (kind === "wrong") writeFileSync(config.dbpath, "this is no database\n".repeat(1000));
      else if (kind !== "missing") await writeRows(config.dbpath, rows, { after: "kill" });
    });
    // Nothing is answered before the limit is reached: then as many litestreams as may run do.
    const asking = new Set<string>();
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    proxy.fault = (request) => {
      const name = nameIn(request);
      asking.add(name);
      if (asking.size >= PLACES) open();
      return FAULTS[/\/(\w+)-/.exec(name)?.[1] ?? ""] ?? { after: gate };
    };

    const app = startManyApps();
    const up = await app.run(
      apps.map(({ kind, config }) => {
        const timeoutSeconds = kind === "stalled" ? 4 : 240;
        return { config, method: "replicateOnce", args: [{ timeoutSeconds }] };
      }),
    );
    const failed = (reason: string) => ({ value: expect.objectContaining({ ok: false, reason }) });
    const answers: Record<Kind, object> = {
      stalled: failed("timeout"),
      refused: failed("credentials"),
      wrong: failed("not-a-database"),
      missing: { error: expect.objectContaining({ code: "DATABASE_NOT_FOUND" }) },
      healthy: { value: expect.objectContaining({ ok: true }) },
    };
    expect(up.outcomes).toEqual(apps.map(({ kind }) => answers[kind]));
    expect(up.children).toBe(PLACES);
    expect(up.descriptors).toBeLessThan(DESCRIPTORS - FREE_DESCRIPTORS / 4);

    // What is proven has gone here; what is not is here, whole.
    for (const { kind, config, files, rows } of apps) {
      if (kind === "healthy") expect(files()).toEqual([]);
      else if (kind === "stalled" || kind === "refused") expect(rowsIn(config.dbpath)).toBe(rows);
    }

    // All at once again, the other way.
    asking.clear();
    const whole = apps.filter(({ kind }) => kind === "healthy");
    const down = await app.run(whole.map(({ config }) => ({ config, method: "restore", args: [{}] })));
    expect(down.outcomes).toEqual(whole.map(({ config }) => ({ value: config.dbpath })));
    for (const { config, rows } of whole) expect(rowsIn(config.dbpath)).toBe(rows);
    expect(down.children).toBeLessThanOrEqual(PLACES);
    expect(down.descriptors).toBeLessThan(DESCRIPTORS - FREE_DESCRIPTORS / 4);
    await app.end();
    for (const { config } of apps) expect(processesWith(config.folder)).toEqual([]);
  }, 300_000);
});

describe("a call whose turn has not come", () => {
  /** As many replications as may run, or so many, each stuck in its first request. */
  async function takePlaces(path: string, count = PLACES) {
    const apps = Array.from({ length: count }, (_, i) =>
      setUp(replicaUrl(proxy.port, `many/${path}-${i}.db`)),
    );
    await forEach(apps, ({ config }) => writeRows(config.dbpath, 1));
    const stuck = new Set<string>();
    let allStuck = () => {};
    const full = new Promise<void>((resolve) => {
      allStuck = resolve;
    });
    proxy.fault = (request) => {
      if (!nameIn(request).startsWith(`many/${path}-`)) return undefined;
      stuck.add(nameIn(request));
      if (stuck.size === count) allStuck();
      return "stall";
    };
    const abort = new AbortController();
    const options = { timeoutSeconds: 55, signal: abort.signal };
    const calls = apps.map(({ config }) => config.replicateOnce(options));
    await full;
    return {
      apps,
      release: async () => {
        abort.abort();
        for (const result of await Promise.all(calls)) expect(result).toMatchObject({ reason: "aborted" });
      },
    };
  }

  test("answers within its own time and by its own signal, says why, and never starts litestream", async () => {
    const url = replicaUrl(proxy.port, "many/late-0.db");
    const late = setUp(url);
    await writeRows(late.config.dbpath, 7);
    const empty = setUp(url);
    const { release } = await takePlaces("first");
    proxy.requests.length = 0;

    const behind = `waited for its turn behind ${PLACES} other calls`;
    const result = await late.config.replicateOnce({ timeoutSeconds: 0.5 });
    expect(result).toMatchObject({
      ok: false,
      reason: "timeout",
      message: expect.stringContaining(behind),
    });
    expect(result.durationMs).toBeLessThan(25_000);
    await expect(empty.config.restore({ timeoutSeconds: 0.5 })).rejects.toMatchObject({
      reason: "timeout",
      message: expect.stringContaining(behind),
    });
    const abort = new AbortController();
    const first = late.config.replicateOnce({ timeoutSeconds: 50, signal: abort.signal });
    const second = empty.config.restore({ signal: abort.signal });
    abort.abort();
    expect(await first).toMatchObject({ ok: false, reason: "aborted" });
    await expect(second).rejects.toMatchObject({ reason: "aborted" });
    expect(proxy.requests.filter((request) => request.includes("late-0"))).toEqual([]);
    expect(late.log.lines.filter(({ msg }) => msg === "litestream")).toEqual([]);
    expect(rowsIn(late.config.dbpath)).toBe(7);
    expect(empty.files()).toEqual([]);

    // One that waits gets the place of one that ends, and nobody's place is lost.
    const patient = late.config.timedReplicate(50);
    await release();
    expect(await patient).toBe(true);
    await empty.config.restore({ timeoutSeconds: 50 });
    expect(rowsIn(empty.config.dbpath)).toBe(7);
  });

  test("is no call that waits for its database, or for another call's run: those take no place", async () => {
    const { apps, release } = await takePlaces("shared", PLACES - 1);
    const locked = setUp(replicaUrl(proxy.port, "many/locked-0.db"));
    const free = setUp(replicaUrl(proxy.port, "many/free-0.db"));
    for (const { config } of [locked, free]) await writeRows(config.dbpath, 7);
    let unlock = () => {};
    const { dbpath } = locked.config;
    const held = withDatabaseLock(
      { dbpath, logger: memoryLogger().logger },
      new AbortController().signal,
      () => {
        return new Promise<void>((done) => {
          unlock = done;
        });
      },
    );
    const abort = new AbortController();
    const options = { timeoutSeconds: 50, signal: abort.signal };
    const waiting = [
      locked.config.replicateOnce(options),
      ...apps.map(({ config }) => config.replicateOnce(options)),
      ...apps.map(({ config }) => config.replicateOnce({ ...options, keepLocal: true })),
    ];
    // The last place is still to be had.
    expect(await free.config.timedReplicate(50)).toBe(true);
    expect(rowsIn(locked.config.dbpath)).toBe(7);
    abort.abort();
    for (const result of await Promise.all(waiting)) expect(result).toMatchObject({ reason: "aborted" });
    unlock();
    await held;
    await release();
    // And all places.
    const again = await takePlaces("again");
    await again.release();
  });
});
