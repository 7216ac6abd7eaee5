import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type ConfigS3, ConfigS3 as Config } from "../../src/index.ts";
import { objectsOf, restorePlan } from "../../src/litestream/dialect.ts";
import { startApp } from "../support/app.ts";
import { fakeLitestream } from "../support/fake-litestream.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { overtimeOf, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

void Config;
let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const BYTES = 10_000;
const ROWS = 60;

/** What the replica holds, and what a boot downloads of it; in copies of the first object. */
async function replicaOf(config: ConfigS3) {
  const [list] = await config.getResultOnTimeout(["litestream", "ltx", "-level", "all", config.s3], 30);
  const objects = objectsOf(list) ?? [];
  const plan = restorePlan(objects);
  const bytes = (some: typeof objects) => some.reduce((sum, { size }) => sum + size, 0);
  return { objects, plan, bytes: bytes(objects), boot: bytes(plan) };
}

/** A life: restores to an empty disk, commits a row and ends; the first one makes the database. */
async function live(url: string, settings = {}, timeoutSeconds = 30) {
  const { config, log, files } = setUp(url, settings);
  await config.restore({ ifReplicaExists: true });
  const isFirst = files().every((name) => name !== "db.sqlite");
  await writeRows(config.dbpath, isFirst ? ROWS : 1, { bytes: BYTES });
  const rows = rowsIn(config.dbpath);
  expect(await config.replicateOnce({ timeoutSeconds })).toMatchObject({ ok: true });
  return { config, log, rows };
}

describe.skipIf(IS_0_3)(`upkeep${IS_0_3 ? " (skipped: litestream 0.3 reads one copy anyway)" : ""}`, () => {
  test("no boot reads much more than two copies, and every row is there", async () => {
    const url = replicaUrl(s3.port, "upkeep/plan.db");
    const first = await replicaOf((await live(url)).config);
    let snapshots = 0;
    for (let life = 2; life <= 8; life += 1) {
      const { config, rows } = await live(url);
      expect(rows).toBe(ROWS + life - 1);
      const { objects, boot } = await replicaOf(config);
      expect(boot).toBeLessThan(2.6 * first.bytes * (rows / ROWS));
      snapshots = objects.filter(({ level }) => level === 9).length;
    }
    // Not at every shutdown.
    expect(snapshots).toBeGreaterThanOrEqual(2);
    expect(snapshots).toBeLessThanOrEqual(4);
  });

  test("what is older than the history goes; a state within it stays", async () => {
    const url = replicaUrl(s3.port, "upkeep/old.db");
    const history = { historyHours: 0 };
    let most = 0;
    for (let life = 1; life <= 12; life += 1) {
      const { config } = await live(url, history);
      most = Math.max(most, (await replicaOf(config)).objects.length);
    }
    // Without a removal: twelve of level 0, besides the snapshots.
    const { config } = setUp(url);
    expect((await replicaOf(config)).objects.filter(({ level }) => level === 0).length).toBeLessThan(12);
    expect(rowsIn(await config.restore())).toBe(ROWS + 11);
    void most;
  });
});

void [onTestFinished, startApp, fakeLitestream, startFaultProxy, overtimeOf];
