import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DatabaseNotFoundError } from "../../src/index.ts";
import { type Fault, type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { freePort, replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { overtimeOf, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
let proxy: FaultProxy;
let paths = 0;
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

const ROWS = 40;
/** A database with rows, and a replica behind the proxy. */
async function setUpRows(url = newUrl()) {
  const app = setUp(url);
  await writeRows(app.config.dbpath, ROWS, { after: "kill" });
  return { ...app, url };
}
const newUrl = () => {
  paths += 1;
  return replicaUrl(proxy.port, `faults/${paths}.db`);
};

/** False within its time, no process left, and the local database as it was. */
async function expectFalse(app: Awaited<ReturnType<typeof setUpRows>>, seconds: number) {
  const { result, overtimeMs } = await overtimeOf(seconds, () =>
    app.config.replicateOnce({ timeoutSeconds: seconds }),
  );
  expect(overtimeMs).toBeLessThan(250);
  expect(processesWith(app.config.folder)).toEqual([]);
  if (result.ok) return expect.unreachable("it claims success");
  expect(rowsIn(app.config.dbpath)).toBe(ROWS);
  return result;
}

/** The store is well again: nothing was lost, and the next try succeeds. */
async function expectRecovery(app: Awaited<ReturnType<typeof setUpRows>>) {
  proxy.fault = () => undefined;
  expect(await app.config.timedReplicate(30)).toBe(true);
  expect(rowsIn(await setUp(app.url).config.restore())).toBe(ROWS);
}

describe("a store that fails for as long as the call lasts: false within the deadline, then all is well again", () => {
  const silent = ["timeout", "unreachable"];
  test.each<[string, Fault, string[]]>([
    ["does not answer", "stall", ["timeout"]],
    ["cuts every connection", "reset", ["unreachable", "timeout"]],
    ["answers 500", { status: 500 }, ["unreachable", "timeout"]],
    ["answers 503", { status: 503 }, ["unreachable", "timeout"]],
    ["loses its answers", "drop-response", silent],
    ["stops in the middle of its answers", "stall-body", silent],
  ])("one that %s", async (_, fault, reasons) => {
    const app = await setUpRows();
    proxy.fault = () => fault;
    const { reason, message } = await expectFalse(app, 2.5);
    expect(reasons).toContain(reason);
    expect(message).toContain(app.config.s3);
    await expectRecovery(app);
  });

  test("one that only takes no uploads", async () => {
    const app = await setUpRows();
    proxy.fault = ({ method }) => (method === "PUT" ? { status: 503 } : undefined);
    await expectFalse(app, 2.5);
    await expectRecovery(app);
  });

  test("one that is not there", async () => {
    const app = await setUpRows(replicaUrl(await freePort(), "x.db"));
    const { reason } = await expectFalse(app, 2.5);
    expect(IS_0_3 ? ["unreachable"] : silent).toContain(reason);
  });

  test("one that fails for a while and recovers in time gives true", async () => {
    const app = await setUpRows();
    let failures = 2;
    proxy.fault = () => {
      failures -= 1;
      return failures >= 0 ? { status: 503 } : undefined;
    };
    expect(await app.config.timedReplicate(40)).toBe(true);
    expect(failures).toBeLessThan(0);
    expect(rowsIn(await setUp(app.url).config.restore())).toBe(ROWS);
  });

  test("one that is slow gives true", async () => {
    const app = await setUpRows();
    proxy.fault = () => ({ slow: { bytes: 200, everyMs: 5 } });
    expect(await app.config.timedReplicate(40)).toBe(true);
    proxy.fault = () => undefined;
    expect(rowsIn(await setUp(app.url).config.restore())).toBe(ROWS);
  });
});

describe("what no retry mends is said at once", () => {
  /** Long enough to be sure that it did not wait for the deadline. */
  const LONG = 50;
  async function expectEarly(app: Awaited<ReturnType<typeof setUpRows>>, reason: string, words: RegExp) {
    const result = await expectFalse(app, LONG);
    expect(result.durationMs).toBeLessThan(LONG * 500);
    expect(result).toMatchObject({ reason, message: expect.stringMatching(words) });
  }

  test("refused credentials", async () => {
    proxy.fault = () => ({ status: 403 });
    await expectEarly(await setUpRows(), "credentials", /AccessDenied.*LITESTREAM_ACCESS_KEY_ID/s);
  });

  test("a wrong secret", async ({ skip }) => {
    skip(!s3.checksSignatures, "fauxqs accepts any key: runs on versitygw in the matrix");
    const token = "wr0ng/s3cret+wr0ng";
    const app = setUp(replicaUrl(s3.port, "faults/wrong.db"), { token });
    await writeRows(app.config.dbpath, ROWS);
    await expectEarly({ ...app, url: "" }, "credentials", /SignatureDoesNotMatch/);
    expect(JSON.stringify(app.log.lines)).not.toContain(token);
  });

  test("a missing bucket", async () => {
    await expectEarly(
      await setUpRows(replicaUrl(s3.port, "x.db", "no-such-bucket")),
      "bucket",
      /NoSuchBucket.*REPLICA_URL/s,
    );
  });

  test("a file that is no database", async () => {
    const { config } = setUp(newUrl());
    writeFileSync(config.dbpath, "this is no database\n".repeat(1000));
    const result = await config.replicateOnce({ timeoutSeconds: LONG });
    expect(result.durationMs).toBeLessThan(LONG * 500);
    expect(result).toMatchObject({ ok: false, reason: "not-a-database" });
    expect(result).toMatchObject({ message: expect.stringMatching(/file is not a database.*DB_SQLITE/s) });
    expect(existsSync(config.dbpath)).toBe(true);
  });

  test("a symbolic link, whose -wal SQLite and litestream look for in different places", async () => {
    const app = await setUpRows();
    const folder = tempFolder();
    symlinkSync(app.config.dbpath, join(folder, "db.sqlite"));
    const linked = setUp(app.url, { folder });
    const result = await linked.config.replicateOnce({ timeoutSeconds: LONG });
    expect(result).toMatchObject({ ok: false, reason: "not-a-database" });
    expect(linked.files()).toEqual(["db.sqlite"]);
    expect(rowsIn(app.config.dbpath)).toBe(ROWS);
  });

  test("a folder in the database's place", async () => {
    const { config } = setUp(newUrl());
    mkdirSync(config.dbpath);
    const result = await config.replicateOnce({ timeoutSeconds: LONG });
    expect(result).toMatchObject({ ok: false, reason: "not-a-database" });
  });

  test("no database rejects", async () => {
    const { config } = setUp(newUrl());
    const error = await config.timedReplicate(LONG).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DatabaseNotFoundError);
    expect(error).toMatchObject({
      code: "DATABASE_NOT_FOUND",
      message: expect.stringContaining(config.dbpath),
    });
  });
});

describe("deadline and abort", () => {
  test.each([0.001, 0.05, 0.3, 1.2])("a deadline of %d s is kept, wherever it falls", async (seconds) => {
    const app = await setUpRows();
    proxy.fault = ({ method }) => (method === "PUT" ? "stall" : undefined);
    await expectFalse(app, seconds);
    await expectRecovery(app);
  });

  test("an upload that hangs when litestream is told to stop does not hold up the answer", async () => {
    const app = await setUpRows();
    // The first object goes up; on 0.3 that is the snapshot, and the -wal hangs.
    let puts = 0;
    proxy.fault = ({ method }) => {
      puts += method === "PUT" ? 1 : 0;
      return method === "PUT" && puts > 1 ? "stall" : undefined;
    };
    if (IS_0_3) {
      await expectFalse(app, 3);
      await expectRecovery(app);
    } else {
      expect(await app.config.timedReplicate(30)).toBe(true); // one object is all there is
    }
  });

  test("an abort ends it at once", async () => {
    const app = await setUpRows();
    proxy.fault = () => "stall";
    const abort = new AbortController();
    const result = app.config.replicateOnce({ timeoutSeconds: 50, signal: abort.signal });
    await proxy.nextRequest(() => true);
    abort.abort();
    expect(await result).toMatchObject({ ok: false, reason: "aborted" });
    expect((await result).durationMs).toBeLessThan(25_000);
    expect(processesWith(app.config.folder)).toEqual([]);
    expect(rowsIn(app.config.dbpath)).toBe(ROWS);
    expect(await app.config.replicateOnce({ timeoutSeconds: 50, signal: abort.signal })).toMatchObject({
      ok: false,
      reason: "aborted",
    });
  });

  test("it answers early: as soon as the proof is there", async () => {
    const app = await setUpRows();
    const result = await app.config.replicateOnce({ timeoutSeconds: 50 });
    expect(result.ok).toBe(true);
    expect(result.durationMs).toBeLessThan(25_000);
  });
});
