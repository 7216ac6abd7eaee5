import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startApp } from "../support/app.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, LITESTREAM } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { RECORD, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** Resolves when no process names the text any more; the test's own limit ends the wait. */
async function goneFrom(text: string): Promise<void> {
  while (processesWith(text).length > 0) await new Promise((done) => setTimeout(done, 20));
}

describe("the app is killed while its litestream waits for a stalled store", () => {
  test("in timedReplicate: litestream ends, and the next life on the same disk has every row", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = ({ method }) => (method === "PUT" ? "stall" : undefined);
    const { config } = setUp(replicaUrl(proxy.port, "process/replicate.db"));
    await writeRows(config.dbpath, 20);
    const app = startApp({ config, method: "timedReplicate", args: [50] });
    await proxy.nextRequest((request) => request.startsWith("PUT"));
    app.kill();
    await app.ended;
    await goneFrom(config.folder);
    proxy.fault = () => undefined;
    await config.restore({ ifDbNotExists: true });
    expect(rowsIn(config.dbpath)).toBe(20);
    expect(await config.timedReplicate(30)).toBe(true);
  });

  test("in restore: litestream ends, and the next boot restores", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const { config, files } = setUp(replicaUrl(proxy.port, "process/restore.db"));
    await writeRows(config.dbpath, 20, { bytes: 10_000 });
    expect(await config.timedReplicate(30)).toBe(true);
    proxy.fault = ({ url }) =>
      url?.includes("list-type") || url?.includes("delimiter") ? undefined : "stall-body";
    const app = startApp({ config, method: "restore" });
    await proxy.nextRequest((request) => /^GET .*\.(?:ltx|lz4)/.test(request));
    app.kill();
    await app.ended;
    proxy.fault = () => undefined;
    // At once, while the old litestream may still be there.
    await config.restore();
    await goneFrom(`${config.dbpath}.restore-`);
    expect(files()).toEqual([RECORD, "db.sqlite"]);
    expect(rowsIn(config.dbpath)).toBe(20);
  });
});

// A history that the lives found: litestream was an orphan where the app was killed right after its start.
test.each([
  ["restore", "restore"],
  ["timedReplicate", "ltx|wal"],
  ["timedReplicate", "replicate"],
] as const)(
  "the app is killed in the moment in which %s starts litestream's %s: litestream ends",
  async (method, command) => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = ({ method: request }) =>
      command !== "replicate" || request === "PUT" ? "stall" : undefined;
    const { config } = setUp(replicaUrl(proxy.port, "process/spawn.db"));
    if (method === "timedReplicate") await writeRows(config.dbpath, 20);
    const args = method === "restore" ? [] : [50];
    const env = { KILL_AT: `^(?:${command}) ` };
    const app = startApp({ config, method, args, env, imports: ["./kill-at-spawn.mjs"] });
    expect(await app.ended).toMatchObject({ signal: "SIGKILL" });
    await goneFrom(config.folder);
  },
);

test("a wrapper script around litestream does not leave it behind at the deadline", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = () => "stall";
  const litestream = join(tempFolder(), "litestream");
  writeFileSync(litestream, `#!/bin/sh\n${LITESTREAM} "$@"\n`);
  chmodSync(litestream, 0o755);
  const { config } = setUp(replicaUrl(proxy.port, "process/wrapper.db"), {}, { litestream });
  await writeRows(config.dbpath, 5);
  expect(await config.timedReplicate(IS_0_3 ? 2 : 1)).toBe(false);
  expect(proxy.requests.length).toBeGreaterThan(0);
  expect(processesWith(config.folder)).toEqual([]);
});

test("litestream is out of reach of a terminal's Ctrl-C: it leads a process group of its own", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  proxy.fault = ({ method }) => (method === "PUT" ? "stall" : undefined);
  const { config } = setUp(replicaUrl(proxy.port, "process/group.db"));
  await writeRows(config.dbpath, 5);
  const abort = new AbortController();
  const result = config.replicateOnce({ timeoutSeconds: 50, signal: abort.signal });
  await proxy.nextRequest((request) => request.startsWith("PUT"));
  const pids = processesWith(config.dbpath).map((line) => Number.parseInt(line, 10));
  expect(pids).toHaveLength(1);
  // Signalling a group that the process does not lead fails with ESRCH.
  for (const pid of pids) expect(() => process.kill(-pid, 0)).not.toThrow();
  abort.abort();
  expect(await result).toMatchObject({ reason: "aborted" });
});

test("an app that makes its call and ends is not held up", async () => {
  const { config } = setUp(replicaUrl(s3.port, "process/ends.db"));
  await writeRows(config.dbpath, 5);
  const { outcome, signal } = await startApp({ config, method: "timedReplicate", args: [55] }).ended;
  expect({ outcome, signal }).toEqual({ outcome: { value: true }, signal: null });
});
