import { renameSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startApp } from "../support/app.ts";
import { startContinuousApp, until } from "../support/continuous.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { MUTE } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** Has so many requests for a list refused, and those that match held until the store holds more. */
async function holdUp(lists: number, matches: (request: string) => boolean) {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  let release = () => {};
  const after = new Promise<void>((resolve) => {
    release = resolve;
  });
  let left = lists;
  let isHeld = false;
  proxy.fault = ({ method, url = "" }) => {
    if (matches(`${method} ${url}`)) {
      isHeld = true;
      return { after };
    }
    if (!/[?&]prefix=/.test(url) || left === 0) return undefined;
    left -= 1;
    return { status: 403 };
  };
  return { port: proxy.port, held: () => until(() => isHeld), release };
}

describe("another machine writes during a restore, before the replica could be looked at:", () => {
  test.each([1, 2])("its rows are not replaced in silence (%i looks fail)", async (lists) => {
    const path = `late-look/rows-${lists}.db`;
    const other = setUp(replicaUrl(s3.port, path)).config;
    await writeRows(other.dbpath, 10);
    expect(await other.timedReplicate(30)).toBe(true);
    await other.restore();
    await writeRows(other.dbpath, 7);
    const store = await holdUp(lists, (request) => /^GET .*\.(?:ltx|lz4)(?:\?|$)/.test(request));
    const { config } = setUp(replicaUrl(store.port, path));
    const restored = config.restore({ timeoutSeconds: 60 });
    await store.held();
    expect(await other.timedReplicate(30)).toBe(true);
    store.release();
    await restored;
    const booted = rowsIn(config.dbpath);
    await writeRows(config.dbpath, 1);
    const result = await config.replicateOnce({ timeoutSeconds: 30 });
    // Either it has booted with them, or it is told.
    if (booted === 10) expect(result).toMatchObject({ ok: false, reason: "replica-moved" });
    else expect([booted, result.ok]).toEqual([17, true]);
    expect(rowsIn(await setUp(replicaUrl(s3.port, path)).config.restore())).toBe(booted === 10 ? 17 : 18);
  });

  test.each([1, 2])(
    "its first backup is not replaced by an empty database (%i looks fail)",
    async (lists) => {
      const path = `late-look/first-${lists}.db`;
      const other = setUp(replicaUrl(s3.port, path)).config;
      await writeRows(other.dbpath, 7);
      const store = await holdUp(lists, (request) => request.includes("max-keys=0"));
      const { config } = setUp(replicaUrl(store.port, path));
      const restored = config.restore({ timeoutSeconds: 60, ifReplicaExists: true });
      await store.held();
      expect(await other.timedReplicate(30)).toBe(true);
      store.release();
      await restored;
      await writeRows(config.dbpath, 1);
      await config.replicateOnce({ timeoutSeconds: 30 });
      expect(rowsIn(await setUp(replicaUrl(s3.port, path)).config.restore())).toBeGreaterThanOrEqual(7);
    },
  );
});

test("two replicas of one database, and a kill between the two: what is beside it is not taken for the other one's", async () => {
  const a = setUp(replicaUrl(s3.port, "late-look/a.db")).config;
  const b = setUp(replicaUrl(s3.port, "late-look/b.db"), { folder: a.folder }).config;
  let rows = 0;
  const replicate = async (config: typeof a) => {
    rows += 1;
    await writeRows(a.dbpath, 1, { after: "kill", bytes: 500 * rows });
    expect(await config.replicateOnce({ timeoutSeconds: 30, keepLocal: true })).toMatchObject({ ok: true });
  };
  for (const config of [b, b, b, b, b, a, a, a]) await replicate(config);
  const call = { method: "replicateOnce", args: [{ timeoutSeconds: 30 }] } as const;
  const app = startApp({ config: b, ...call, args: [...call.args], imports: ["./kill-after-record.mjs"] });
  expect((await app.ended).signal).toBe("SIGKILL");
  await b.restore({ ifDbNotExists: true });
  expect(await b.timedReplicate(30)).toBe(true);
  expect(rowsIn(await b.restore())).toBe(rows);
}, 120_000);

test.skipIf(MUTE)("files that can't be looked at while replicate() runs do not end the app", async () => {
  const { config } = setUp(replicaUrl(s3.port, "late-look/away.db"));
  await writeRows(config.dbpath, 5);
  const app = await startContinuousApp(config);
  renameSync(config.folder, `${config.folder}.away`);
  writeFileSync(config.folder, "");
  await new Promise((done) => setTimeout(done, 1500));
  rmSync(config.folder);
  renameSync(`${config.folder}.away`, config.folder);
  expect(await app.write(1)).toBe(6);
});
