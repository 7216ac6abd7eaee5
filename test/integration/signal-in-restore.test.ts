import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { startScript } from "../support/script.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
const PATH = "signal-in-restore/1.db";
beforeAll(async () => {
  s3 = await startS3();
  const { config } = setUp(replicaUrl(s3.port, PATH), { folder: tempFolder("hook") });
  await writeRows(config.dbpath, 20);
  expect(await config.timedReplicate(50)).toBe(true);
});
afterAll(() => s3.stop());

/** In front of the store, which has a backup; until `release` it answers nothing. */
async function startSilentStore(): Promise<FaultProxy & { release(): void }> {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  proxy.fault = () => ({ after: released });
  return Object.assign(proxy, { release });
}

/** What an app does after its restore: nothing here may come to that. */
const ON = `say({ booted: true }); setInterval(() => {}, 60_000);`;
/** What works in the folder, without the app, which has it in its source. */
const workers = (folder: string) => processesWith(folder).filter((line) => !line.includes("--eval"));
const gone = (folder: string) => expect.poll(() => workers(folder), { timeout: 30_000 }).toEqual([]);

test.each([
  ["SIGTERM", 143, ""],
  // It is a part of many packages, leaves the signal to any other listener, and so is no reason to leave it to that.
  ["SIGINT", 130, 'import { execa } from "execa"; void execa("sleep", ["60"]).catch(() => {});'],
] as const)(
  "%s while restore() runs, and nobody else listens: nothing half-done, exit code %i",
  async (signal, code, others) => {
    const store = await startSilentStore();
    const [{ config, files }, elsewhere] = [setUp(replicaUrl(store.port, PATH)), tempFolder()];
    const app = startScript(
      [config],
      `${others}
    void config.restore({ to: ${JSON.stringify(join(elsewhere, "copy.sqlite"))} }).then(() => say({ copied: true }));
    await config.restore();
    ${ON}`,
    );
    const asked = () => workers(elsewhere).length > 0 && workers(config.folder).length > 0;
    await expect.poll(asked, { timeout: 30_000 }).toBe(true);
    await expect.poll(() => store.requests.length, { timeout: 30_000 }).toBeGreaterThan(0);
    app.kill(signal);
    expect(await app.ended).toEqual({ code, signal: null });
    expect(app.lines.filter(({ msg }) => msg.startsWith(`${signal} in restore()`))).toHaveLength(2);
    await gone(config.folder);
    await gone(elsewhere);
    expect([files(), setUp("s3://x/x.db", { folder: elsewhere }).files(), app.events]).toEqual([[], [], []]);
  },
);

test("another listener decides, and after the restore there is none of the library's", async () => {
  const store = await startSilentStore();
  const { config } = setUp(replicaUrl(store.port, PATH));
  const app = startScript(
    [config],
    `process.on("SIGTERM", () => say({ other: true }));
    await config.restore();
    say({ listeners: ["SIGTERM", "SIGINT"].map((name) => process.listenerCount(name)) });`,
  );
  await expect.poll(() => store.requests.length, { timeout: 30_000 }).toBeGreaterThan(0);
  app.kill("SIGTERM");
  await app.event("other");
  store.release();
  expect(await app.event("listeners")).toEqual({ listeners: [1, 0] });
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect(rowsIn(config.dbpath)).toBe(20);
});

test("onShutdown() before restore(): a signal ends the restore, and the app does not go on while close() does", async () => {
  const store = await startSilentStore();
  const { config, files } = setUp(replicaUrl(store.port, PATH));
  const app = startScript(
    [config],
    `let db, end;
    process.on("SIGUSR2", () => end());
    config.onShutdown({
      timeoutSeconds: 50,
      close: async () => {
        say({ closing: true });
        await new Promise((resolve) => { end = resolve; });
        db?.close();
      },
    });
    await config.restore({ ifDbNotExists: true, ifReplicaExists: true });
    ${ON}
    db = open(config, 1);`,
  );
  await expect.poll(() => store.requests.length, { timeout: 30_000 }).toBeGreaterThan(0);
  app.kill("SIGTERM");
  await app.event("closing");
  await gone(config.folder);
  store.release();
  app.kill("SIGUSR2");
  expect(await app.ended).toEqual({ code: 0, signal: null });
  expect(app.events).toEqual([{ closing: true }]);
  expect(files()).toEqual([]);
});
