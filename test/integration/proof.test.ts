import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { LitestreamUnsupportedError } from "../../src/index.ts";
import { startApp } from "../support/app.ts";
import { afterLitestream, fakeLitestream } from "../support/fake-litestream.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, LITESTREAM, LOGS_WAL_SEGMENTS } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { bodyOf, lateWriter, rowsIn, startWriter, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

describe("nothing is deleted without the whole proof", () => {
  test("evidence without exit code 0 proves nothing", async () => {
    const litestream = fakeLitestream(afterLitestream("exit 1"));
    const { config, log } = setUp(replicaUrl(s3.port, "proof/exit-code.db"), {}, { litestream });
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(4)).toBe(false);
    const evidence = IS_0_3 ? "snapshot written" : "one-shot replication complete";
    expect(log.lines.some(({ line }) => String(line).includes(evidence))).toBe(true);
    expect(rowsIn(config.dbpath)).toBe(30);
  });

  test("a snapshot whose WAL is refused proves nothing", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    // 0.3 keeps snapshots and WAL segments apart; 0.5 has everything in one place.
    proxy.fault = ({ method, url }) =>
      method === "PUT" && !url?.includes("/snapshots/") ? { status: 503 } : undefined;
    const { config, log } = setUp(replicaUrl(proxy.port, "proof/no-wal.db"));
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(3)).toBe(false);
    expect(log.lines.some(({ line }) => String(line).includes("snapshot written"))).toBe(IS_0_3);
    expect(rowsIn(config.dbpath)).toBe(30);
  });

  test.skipIf(!LOGS_WAL_SEGMENTS)(
    "litestream ≥ 0.3.12 is not interrupted in its first synchronisation: it could hang for ever",
    async () => {
      const proxy = await startFaultProxy(s3.port);
      onTestFinished(() => proxy.stop());
      let refused = 0;
      proxy.fault = ({ method, url }) => {
        if (method !== "PUT" || !url?.includes("/wal/") || refused > 0) return undefined;
        refused += 1;
        return { status: 503 }; // it tries again after half a second
      };
      const { config, log } = setUp(replicaUrl(proxy.port, "proof/settled.db"));
      await writeRows(config.dbpath, 30, { after: "kill" });
      expect(await config.timedReplicate(20)).toBe(true);
      const order = log.lines.flatMap(
        ({ line }) => /snapshot written|wal segment written|signal received/.exec(String(line)) ?? [],
      );
      expect(refused).toBe(1);
      expect(order).toEqual(["snapshot written", "wal segment written", "signal received"]);
    },
  );

  test.skipIf(!LOGS_WAL_SEGMENTS)(
    "a litestream ≥ 0.3.12 that does not end when it is asked to is tried again",
    async () => {
      const litestream = fakeLitestream(
        afterLitestream('[ -e "$0.once" ] || { touch "$0.once"; sleep 600; }'),
      );
      const { config, files } = setUp(replicaUrl(s3.port, "proof/hangs.db"), {}, { litestream });
      await writeRows(config.dbpath, 30, { after: "kill" });
      expect(await config.timedReplicate(40)).toBe(true);
      expect(files()).toEqual([]);
    },
  );

  // A history that the lives found: 0.3.9 uploads the WAL after its "snapshot written", and was killed for a hang.
  test("a WAL that takes longer to upload than a litestream that hangs may take is waited for", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = ({ method, url }) =>
      method === "PUT" && !url?.includes("/snapshots/") ? { delayMs: 3000 } : undefined;
    const url = replicaUrl(proxy.port, "proof/slow-wal.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(50)).toBe(true);
    expect(rowsIn(await setUp(url).config.restore())).toBe(30);
  });

  test("exit code 0 without evidence proves nothing", async () => {
    const litestream = fakeLitestream("exit 0");
    const { config } = setUp(replicaUrl(s3.port, "proof/silence.db"), {}, { litestream });
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(1)).toBe(false);
    expect(rowsIn(config.dbpath)).toBe(30);
  });

  test("a run that is cut off by the deadline: what it says then is not why", async () => {
    const litestream = fakeLitestream(`echo "caused by: context canceled"; exec sleep 60`);
    const { config } = setUp(replicaUrl(s3.port, "proof/cut.db"), {}, { litestream });
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.replicateOnce({ timeoutSeconds: 1 })).toMatchObject({ ok: false, reason: "timeout" });
  });

  test("the words of the evidence in another line prove nothing", async () => {
    const echo = `echo "INFO about to see snapshot written db=x or msg=one-shot replication complete"; exit 0`;
    const { config } = setUp(replicaUrl(s3.port, "proof/words.db"), {}, { litestream: fakeLitestream(echo) });
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(1)).toBe(false);
    expect(rowsIn(config.dbpath)).toBe(30);
  });

  test("a commit between the synchronisation and the removal keeps the database", async () => {
    // The wrapper lets litestream succeed, and then another process commits, each time.
    const writer = new URL("../support/writer.mjs", import.meta.url).pathname;
    const folder = tempFolder();
    const commit = `${process.execPath} ${writer} "${join(folder, "db.sqlite")}" '{"rows":1}' >/dev/null`;
    const wrapped = afterLitestream(commit);
    const { config, log } = setUp(
      replicaUrl(s3.port, "proof/late.db"),
      { folder },
      { litestream: fakeLitestream(wrapped) },
    );
    await writeRows(config.dbpath, 30, { after: "kill" });
    expect(await config.timedReplicate(8)).toBe(false);
    expect(log.at(50)).toEqual([expect.objectContaining({ reason: "still-changing" })]);
    expect(rowsIn(config.dbpath)).toBeGreaterThan(30);
  });

  test("a commit by another process at the very moment of the removal keeps the database", async () => {
    const url = replicaUrl(s3.port, "proof/moment.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 30, { after: "kill" });
    const imports = ["./last-moment.mjs"];
    const app = startApp({
      config,
      method: "timedReplicate",
      args: [40],
      imports,
      env: lateWriter(config.dbpath, { rows: 1 }),
    });
    // The first removal is undone; the second one finds what it looked at.
    const { outcome, stderr } = await app.ended;
    expect(outcome, stderr).toEqual({ value: true });
    expect(rowsIn(await setUp(url).config.restore())).toBe(31);
  });

  test.skipIf(IS_0_3).each([
    ["after the first run", '[ -e "$0.done" ] || { touch "$0.done"; RESTART; }', "first"],
    ["before the second run", '[ ! -e "$0.done" ] || [ -e "$0.2" ] || { touch "$0.2"; RESTART; }', "second"],
  ])(
    "a -wal that another program begins anew between two rounds, %s, loses nothing",
    async (_, script, name) => {
      const folder = tempFolder();
      const dbpath = join(folder, "db.sqlite");
      const restart = new URL("../support/restart-wal.mjs", import.meta.url).pathname;
      const command = script.replace("RESTART", `${process.execPath} ${restart} "${dbpath}"`);
      const wrapped =
        name === "first" ? afterLitestream(command) : `${command}; touch "$0.done"; exec ${LITESTREAM} "$@"`;
      const url = replicaUrl(s3.port, `proof/restart-${name}.db`);
      const { config } = setUp(url, { folder }, { litestream: fakeLitestream(wrapped) });
      await writeRows(dbpath, 30, { after: "kill", bytes: 3000 });
      expect(await config.timedReplicate(40)).toBe(true);
      const restored = await setUp(url).config.restore();
      expect(rowsIn(restored)).toBe(32);
      expect(bodyOf(restored, 1)).toBe("changed");
    },
  );

  test.skipIf(IS_0_3)(
    "nor does one that it begins anew after somebody has removed litestream's folder",
    async () => {
      const url = replicaUrl(s3.port, "proof/restart-folder.db");
      const { config } = setUp(url);
      await writeRows(config.dbpath, 30, { after: "kill", bytes: 3000 });
      expect(await config.replicateOnce({ timeoutSeconds: 40, keepLocal: true })).toMatchObject({ ok: true });
      const restart = new URL("../support/restart-wal.mjs", import.meta.url).pathname;
      expect(spawnSync(process.execPath, [restart, config.dbpath]).signal).toBe("SIGKILL");
      rmSync(join(config.folder, ".db.sqlite-litestream"), { recursive: true });
      expect(await config.timedReplicate(40)).toBe(true);
      const restored = await setUp(url).config.restore();
      expect(rowsIn(restored)).toBe(32);
      expect(bodyOf(restored, 1)).toBe("changed");
    },
  );

  test("a database that can be moved aside, but then neither removed nor moved back, is not gone", async () => {
    const { config } = setUp(replicaUrl(s3.port, "proof/held.db"));
    await writeRows(config.dbpath, 30);
    const app = startApp({
      config,
      method: "replicateOnce",
      args: [{ timeoutSeconds: 40 }],
      imports: ["./held-fast.mjs"],
    });
    const { outcome, stderr } = await app.ended;
    expect(outcome, stderr).toMatchObject({ value: { ok: false, reason: "failed" } });
    expect(outcome.value.message).toContain("EIO");
    await config.restore({ ifDbNotExists: true });
    expect(rowsIn(config.dbpath)).toBe(30);
  });

  test("a database that is put in the place of the first one is not deleted with it", async () => {
    const url = replicaUrl(s3.port, "proof/swapped.db");
    const { config } = setUp(url);
    await writeRows(config.dbpath, 30);
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const other = tempFolder();
    await writeRows(join(other, "new.db"), 50);
    const bytes = readFileSync(join(other, "new.db"));
    const swap = `cp "${join(other, "new.db")}" "${config.dbpath}.new"; mv "${config.dbpath}.new" "${config.dbpath}"`;
    const wrapped = afterLitestream(swap);
    const swapped = setUp(url, { folder: config.folder }, { litestream: fakeLitestream(wrapped) });
    expect(await swapped.config.timedReplicate(3)).toBe(false);
    expect(readFileSync(config.dbpath).equals(bytes) || existsSync(`${config.dbpath}-wal`)).toBe(true);
  });
});

describe("a signal to litestream from outside", () => {
  test.each(["SIGINT", "SIGTERM", "SIGKILL"] as const)("%s is no proof; the next round is", async (name) => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const url = replicaUrl(proxy.port, `proof/${name}.db`);
    const { config, files } = setUp(url);
    const writer = await startWriter(config.dbpath, { rows: 30, after: "hold" });
    const replicated = config.timedReplicate(40);
    await proxy.nextRequest((request) => request.startsWith("PUT"));
    const pids = litestreamsOf(config.dbpath);
    expect(pids).toHaveLength(1);
    for (const pid of pids) process.kill(pid, name);
    await writer.finish();
    expect(await replicated).toBe(true);
    expect(files()).toEqual([]);
    expect(rowsIn(await setUp(url).config.restore())).toBe(30);
  });
});

/** The ids of the litestream processes that replicate the database. */
function litestreamsOf(dbpath: string): number[] {
  return processesWith(dbpath)
    .filter((line) => / replicate /.test(line))
    .map((line) => Number.parseInt(line, 10));
}

describe("a litestream that can't prove a replication", () => {
  const OLD = process.env.LITESTREAM_0_5_5_BIN;
  test.skipIf(!OLD)(
    "0.5.5 is refused with the advice to upgrade, and may restore (LITESTREAM_0_5_5_BIN)",
    async () => {
      const url = replicaUrl(s3.port, "proof/old.db");
      const { config } = setUp(url, {}, { litestream: OLD ?? "" });
      await writeRows(config.dbpath, 10);
      const error = await config.timedReplicate(20).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(LitestreamUnsupportedError);
      expect(error).toMatchObject({
        code: "LITESTREAM_UNSUPPORTED",
        message: expect.stringMatching(/0\.5\.5.*upgrade to 0\.5\.6/),
      });
      expect(rowsIn(config.dbpath)).toBe(10);
      expect(readdirSync(config.folder)).toContain("db.sqlite");

      // What it wrote itself it can restore (what 0.5.17 writes it can't read).
      const args = ["litestream", "replicate", config.dbpath, url];
      const written = config.getResultOnTimeout(args, 50);
      const elsewhere = setUp(url, {}, { litestream: OLD ?? "" }).config;
      const restored = async (): Promise<string> =>
        await elsewhere.restore().catch(async () => await restored());
      expect(rowsIn(await restored())).toBe(10);
      for (const pid of litestreamsOf(config.dbpath)) process.kill(pid, "SIGKILL");
      await written;
    },
  );
});
