import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { ConfigOptions, ConfigS3 } from "../../src/index.ts";
import { objectsOf, restorePlan } from "../../src/litestream/dialect.ts";
import { startApp } from "../support/app.ts";
import { afterLitestream, fakeLitestream } from "../support/fake-litestream.ts";
import { type Fault, startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { overtimeOf, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const ROWS = 60;
const SNAPSHOT = 9;

/** What the replica holds, and what a boot downloads of it. */
async function replicaOf(config: ConfigS3) {
  const [list] = await config.getResultOnTimeout(["litestream", "ltx", "-level", "all", config.s3], 30);
  const objects = objectsOf(list) ?? [];
  const bytes = (some: typeof objects) => some.reduce((sum, { size }) => sum + size, 0);
  const snapshots = objects.filter(({ level }) => level === SNAPSHOT).length;
  const uploads = objects.filter(({ level }) => level === 0).length;
  return { snapshots, uploads, bytes: bytes(objects), boot: bytes(restorePlan(objects)) };
}

/** Boots on an empty disk and commits a row; the first one makes a database of 600 kB. This process never opens it. */
async function boot(url: string, settings = {}, options: ConfigOptions = {}) {
  const { config, log, files } = setUp(url, settings, options);
  await config.restore({ ifReplicaExists: true });
  await writeRows(config.dbpath, files().includes("db.sqlite") ? 1 : ROWS, { bytes: 10_000 });
  return { config, log };
}

async function live(url: string, settings = {}) {
  const booted = await boot(url, settings);
  expect(await booted.config.replicateOnce({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
  return booted;
}

/** So many lives, after which a snapshot is worth its upload at the end of the next one. */
const UNTIL_DUE = 2;
const DUE_ROWS = ROWS + UNTIL_DUE;
async function livesUntilDue(path: string, settings = {}) {
  const url = replicaUrl(s3.port, `upkeep/${path}.db`);
  for (let life = 1; life <= UNTIL_DUE; life += 1) await live(url, settings);
  return url;
}

const said = (log: Awaited<ReturnType<typeof boot>>["log"]) =>
  log.lines.flatMap(({ level, msg }) => (level >= 30 ? [msg] : []));

describe.skipIf(IS_0_3)(`upkeep${IS_0_3 ? " (skipped: on 0.3 a boot reads one copy)" : ""}`, () => {
  test("no boot downloads much more than two copies, and every row is there", async () => {
    const url = replicaUrl(s3.port, "upkeep/plan.db");
    const { config } = await live(url);
    const first = await replicaOf(config);
    for (let life = 2; life <= 8; life += 1) {
      await live(url);
      const rows = ROWS + life - 1;
      expect((await replicaOf(config)).boot).toBeLessThan(2.6 * first.bytes * (rows / ROWS));
    }
    // Not at every shutdown, and within the history nothing goes.
    const { snapshots, uploads } = await replicaOf(config);
    expect(snapshots).toBeGreaterThanOrEqual(2);
    expect(snapshots).toBeLessThanOrEqual(4);
    expect(uploads).toBeGreaterThanOrEqual(8);
    expect(rowsIn(await config.restore())).toBe(ROWS + 7);
  });

  test("what is older than the history goes, and each state within it can still be restored", async () => {
    const url = replicaUrl(s3.port, "upkeep/old.db");
    const seconds = 10;
    const states: { at: Date; rows: number }[] = [];
    let config: ConfigS3;
    do {
      expect(states.length, "lives without a removal").toBeLessThan(50);
      ({ config } = await live(url, { historyHours: seconds / 3600 }));
      const at = new Date();
      states.push({ at, rows: ROWS + states.length });
      // The store's times are whole seconds: the next upload comes in a later one.
      while (Math.floor(Date.now() / 1000) === Math.floor(at.getTime() / 1000))
        await new Promise((done) => setTimeout(done, 20));
    } while ((await replicaOf(config)).uploads === states.length);

    const since = Number(states.at(-1)?.at) - seconds * 1000;
    const within = states.filter(({ at }) => at.getTime() >= since);
    expect(within.length).toBeGreaterThan(1);
    for (const { at, rows } of within) {
      const to = join(tempFolder(), "then.sqlite");
      expect(rowsIn(await config.restore({ to, timestamp: at }))).toBe(rows);
    }
    expect(rowsIn(await config.restore())).toBe(states.at(-1)?.rows);
  }, 180_000);

  test.each<[string, Fault]>([
    ["is refused", { status: 403 }],
    ["stalls", "stall"],
  ])("a snapshot whose upload %s changes nothing of the answer, nor of its time", async (name, fault) => {
    const url = await livesUntilDue(`fault-${name.replace(" ", "-")}`);
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config, log } = await boot(url.replace(`:${s3.port}`, `:${proxy.port}`));
    proxy.fault = ({ method, url = "" }) => (method !== "GET" && url.includes("/0009/") ? fault : undefined);
    const { result, overtimeMs } = await overtimeOf(8, () => config.replicateOnce({ timeoutSeconds: 8 }));
    expect(result).toMatchObject({ ok: true });
    expect(overtimeMs).toBeLessThan(0);
    expect(said(log)).toContainEqual(expect.stringContaining("not now, but at a later shutdown"));
    proxy.fault = () => undefined;
    expect(rowsIn(await config.restore())).toBe(DUE_ROWS);
    // The next life makes up for it.
    await writeRows(config.dbpath, 1);
    expect(await config.replicateOnce({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
    expect((await replicaOf(config)).snapshots).toBe(1);
  });

  test("without the time for it there is none", async () => {
    const url = await livesUntilDue("hurry");
    const { config, log } = await boot(url);
    // The proof takes less, and a snapshot wants more; a slow machine needs more for the proof, too.
    let seconds = 1.9;
    while (!(await config.replicateOnce({ timeoutSeconds: seconds, keepLocal: true })).ok) seconds *= 1.5;
    const early = (await replicaOf(config)).snapshots;
    expect(said(log).filter((line) => /a snapshot goes up/.test(line))).toHaveLength(early);
  });

  test("what is committed meanwhile is not lost", async () => {
    const url = await livesUntilDue("commit");
    const folder = tempFolder();
    const writer = new URL("../support/writer.mjs", import.meta.url).pathname;
    const commit = `${process.execPath} ${writer} "${folder}/db.sqlite" '{"rows":1}' >/dev/null`;
    const once = `[ -e "$0.done" ] || { touch "$0.done"; ${commit}; }`;
    const litestream = fakeLitestream(afterLitestream(once), "replicate -once -force-snapshot");
    const { config, log } = await boot(url, { folder }, { litestream });
    expect(await config.replicateOnce({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
    expect(said(log)).toContainEqual(expect.stringContaining("a snapshot goes up"));
    expect(rowsIn(await setUp(url).config.restore())).toBe(DUE_ROWS + 1);
  });

  test("the app is killed in the middle: the next life on that disk has every row, and does not accuse itself", async () => {
    const url = await livesUntilDue("kill");
    const { config } = await boot(url);
    const env = { KILL_AT: "^replicate -once -force-snapshot" };
    const imports = ["./kill-at-spawn.mjs"];
    const app = startApp({ config, method: "timedReplicate", args: [50], env, imports });
    const ended = await app.ended;
    expect(ended.signal, ended.stderr).toBe("SIGKILL");
    await config.restore({ ifDbNotExists: true });
    expect(rowsIn(config.dbpath)).toBe(DUE_ROWS);
    expect(await config.replicateOnce({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
    expect(rowsIn(await config.restore())).toBe(DUE_ROWS);
  });
});
