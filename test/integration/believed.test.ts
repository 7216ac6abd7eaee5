import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { litestreamOf, startHeard, until } from "../support/continuous.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

// Stores that answer as if they had what was uploaded.

const NOT_HELD = /the replica does not hold what litestream has uploaded: its list /;

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

async function pretending() {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  return proxy;
}

/** Replicates 20 rows, and says what is heard. */
async function replicating(port: number, path: string) {
  const { config } = setUp(replicaUrl(port, path));
  await writeRows(config.dbpath, 20);
  return { config, ...(await startHeard(config)) };
}

const rowsElsewhere = async (url: string) => rowsIn(await setUp(url).config.restore());

describe.skipIf(MUTE)("a store that says that it has what was uploaded, and has not", () => {
  test("replicate() does not begin on it, and says why", async () => {
    const proxy = await pretending();
    proxy.fault = () => "pretend";
    const { config } = setUp(replicaUrl(proxy.port, "believed/start.db"));
    await writeRows(config.dbpath, 20);
    await expect(config.replicate({ startTimeoutSeconds: 8 })).rejects.toMatchObject({
      code: "REPLICATION_FAILED",
      // 0.3 looks by itself for the snapshot that it has uploaded.
      message: IS_0_3 ? expect.any(String) : expect.stringMatching(NOT_HELD),
    });
    proxy.fault = () => undefined;
    expect(await config.timedReplicate(30)).toBe(true);
    expect(await rowsElsewhere(config.s3)).toBe(20);
  });

  test("from some moment on, or since somebody has emptied the bucket: the next look finds it out, and a whole copy mends it", {
    timeout: 180_000,
  }, async () => {
    const proxy = await pretending();
    const [forgetful, emptied] = await Promise.all([
      replicating(proxy.port, "believed/forgetful.db"),
      replicating(s3.port, "believed/emptied.db"),
    ]);
    proxy.fault = () => "pretend";
    for (const key of await s3.keys("believed/emptied.db")) await s3.expire(key);
    for (const { config, replication, heard } of [forgetful, emptied]) {
      await writeRows(config.dbpath, 5);
      await until(() => heard.length > 0);
      expect(heard[0]).toMatch(NOT_HELD);
      expect(replication.status().lastError).toBe(heard[0]);
    }
    proxy.fault = () => undefined;
    for (const { config, replication, heard } of [forgetful, emptied]) {
      await until(() => heard.length > 1);
      expect(heard[1]).toBe("recovered");
      expect(replication.status()).toMatchObject({ running: true, failingSince: undefined });
      expect(await rowsElsewhere(config.s3)).toBe(25);
      // The same litestream goes on.
      const pid = litestreamOf(config.folder);
      await writeRows(config.dbpath, 5);
      expect(litestreamOf(config.folder)).toBe(pid);
      expect(await replication.stop({ timeoutSeconds: 30 })).toMatchObject({ ok: true });
      expect(await rowsElsewhere(config.s3)).toBe(30);
    }
  });
});
