import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  DatabaseExistsError,
  FileSystemError,
  InvalidOptionError,
  LitestreamUnsupportedError,
  RestoreError,
  type RestoreOptions,
} from "../../src/index.ts";
import { until } from "../support/continuous.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3, LITESTREAM, MUTE } from "../support/litestream.ts";
import { freePort, replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { type memoryLogger, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
let paths = 0;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const newPath = () => {
  paths += 1;
  return `options/${paths}.db`;
};

/** What came before it and what comes after it has other times, in whole seconds. */
async function moment(): Promise<Date> {
  const now = new Date();
  await until(() => Math.floor(Date.now() / 1000) > Math.floor(Number(now) / 1000));
  return now;
}

/** A life that adds so many rows. */
async function live(url: string, rows: number, litestream: string = LITESTREAM): Promise<void> {
  const { config } = setUp(url, { folder: tempFolder("hook") }, { litestream });
  await config.restore({ ifReplicaExists: true });
  await writeRows(config.dbpath, rows);
  expect(await config.timedReplicate(40)).toBe(true);
}

/** Three lives, after which there are 10, 15 and 20 rows, and the moments between them. */
async function threeLives(path: string = newPath()) {
  const url = replicaUrl(s3.port, path);
  const before = await moment();
  await live(url, 10);
  const first = await moment();
  await live(url, 5);
  const second = await moment();
  await live(url, 5);
  return { url, path, before, first, second, after: await moment() };
}

/** How many rows are there when it is restored to a file of its own. */
async function rowsOf(
  url: string,
  options: RestoreOptions,
  litestream: string = LITESTREAM,
): Promise<number> {
  const to = join(tempFolder(), "there.db");
  return rowsIn(await setUp(url, {}, { litestream }).config.restore({ to, ...options }));
}

/** The error, or a failure of the test. */
async function rejection(promise: Promise<unknown>): Promise<RestoreError> {
  const error = await promise.then(
    () => expect.unreachable("it resolved"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RestoreError);
  return error as RestoreError;
}

const warnings = (log: ReturnType<typeof memoryLogger>) => log.at(40).map(({ msg }) => msg);

describe("timestamp", () => {
  let lives: Awaited<ReturnType<typeof threeLives>>;
  beforeAll(async () => {
    lives = await threeLives();
  });

  test("gives the state of the moment; after the last upload, the newest", async () => {
    const { url, first, second, after } = lives;
    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect(await rowsOf(url, { timestamp: first.toISOString().replace("Z", "+00:00") })).toBe(10);
    expect(await rowsOf(url, { timestamp: second })).toBe(15);
    expect(await rowsOf(url, { timestamp: after })).toBe(20);
    expect(await rowsOf(url, { timestamp: new Date(Number(after) + 3_600_000) })).toBe(20);
    expect(await rowsOf(url, {})).toBe(20);
  });

  test("before the first backup: rejects, says since when there is one, and leaves nothing", async () => {
    const { url, before, first } = lives;
    for (const ifReplicaExists of [false, true]) {
      const { config, files } = setUp(url);
      const error = await rejection(config.restore({ timestamp: before, ifReplicaExists }));
      expect(error.reason).toBe("no-backup");
      const since = /holds no state of (\S+): the first one is of (\S+Z)\. Choose a later/.exec(
        error.message,
      );
      expect(since?.[1]).toBe(before.toISOString());
      expect(Date.parse(since?.[2] ?? "")).toBeGreaterThan(Number(before));
      expect(await rowsOf(url, { timestamp: since?.[2] ?? "" })).toBe(10);
      expect(Date.parse(since?.[2] ?? "")).toBeLessThanOrEqual(Number(first));
      expect(files()).toEqual([]);
    }
  });

  test("without any backup: as without a timestamp", async () => {
    const { config, files } = setUp(replicaUrl(s3.port, newPath()));
    expect((await rejection(config.restore({ timestamp: new Date() }))).reason).toBe("no-backup");
    expect(await config.restore({ timestamp: new Date(), ifReplicaExists: true })).toBe(config.dbpath);
    expect(files().filter((name) => !name.startsWith("."))).toEqual([]);
  });

  test("takes the database back: the next replication makes that the newest, and nothing of the history is lost", async () => {
    const { url, first, second, after } = await threeLives();
    const { config, log } = setUp(url);
    expect(rowsIn(await config.restore({ timestamp: first }))).toBe(10);
    await writeRows(config.dbpath, 1);
    // A boot on the same disk goes on with it.
    await config.restore({ timestamp: first, ifDbNotExists: true });
    expect(warnings(log)).toContainEqual(expect.stringContaining("exists and stays"));
    expect(rowsIn(config.dbpath)).toBe(11);
    expect(await config.timedReplicate(40)).toBe(true);
    expect(rowsIn(await config.restore())).toBe(11);
    const back = await moment();
    await writeRows(config.dbpath, 1);
    expect(await config.timedReplicate(40)).toBe(true);

    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect(await rowsOf(url, { timestamp: second })).toBe(15);
    expect(await rowsOf(url, { timestamp: after })).toBe(20);
    expect(await rowsOf(url, { timestamp: back })).toBe(11);
    expect(await rowsOf(url, {})).toBe(12);
  });

  test("taking it back does not hide that another machine writes meanwhile", async () => {
    const { url, first } = await threeLives();
    const { config } = setUp(url);
    await config.restore({ timestamp: first });
    await live(url, 1);
    await writeRows(config.dbpath, 1);
    expect(await config.replicateOnce({ timeoutSeconds: 30 })).toMatchObject({ reason: "replica-moved" });
    expect(rowsIn(config.dbpath)).toBe(11);
  });

  test.skipIf(MUTE)("within a life that replicates all the time", async () => {
    const url = replicaUrl(s3.port, newPath());
    const { config } = setUp(url);
    await writeRows(config.dbpath, 10);
    const replication = await config.replicate({ startTimeoutSeconds: 50, syncIntervalSeconds: 0.1 });
    onTestFinished(() => config.delete());
    const reached = (rows: number) => until(async () => (await rowsOf(url, {})) === rows);
    await reached(10);
    const first = await moment();
    await writeRows(config.dbpath, 5);
    await reached(15);
    const second = await moment();
    await writeRows(config.dbpath, 5);
    await reached(20);
    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect(await rowsOf(url, { timestamp: second })).toBe(15);
    expect(await rowsOf(url, { timestamp: new Date() })).toBe(20);
    expect(await replication.stop({ timeoutSeconds: 40 })).toMatchObject({ ok: true });
    expect(await rowsOf(url, { timestamp: second })).toBe(15);
  });

  test.runIf(!IS_0_3)("objects that are missing before it are no older state in its place", async () => {
    const { url, path, first, second } = await threeLives();
    // The snapshot of the last life would do without the middle.
    const lost = (await s3.keys(path)).filter((key) =>
      /\/0009\/|0000000000000002-0000000000000002/.test(key),
    );
    expect(lost.length).toBeGreaterThan(0);
    for (const key of lost) await s3.expire(key);
    const error = await rejection(rowsOf(url, { timestamp: new Date() }));
    expect(error.reason).toBe("failed");
    expect(error.message).toMatch(
      /objects of the backup are missing.*last whole state before is of 2\d{3}-.*Z/,
    );
    const whole = /before is of (\S+Z)/.exec(error.message)?.[1] ?? "";
    expect(await rowsOf(url, { timestamp: whole })).toBe(10);
    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect(await rowsOf(url, { timestamp: second })).toBe(10); // of the second life nothing is left to tell
  });

  test.runIf(!IS_0_3)("0.5 finds what 0.3 has written, and not in the place of its own", async () => {
    const url = replicaUrl(s3.port, newPath());
    const old = createRequire(import.meta.url).resolve(
      `@flydotio/litestream-${process.platform}-${process.arch}/litestream`,
    );
    const before = await moment();
    await live(url, 10, old);
    const first = await moment();
    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect((await rejection(rowsOf(url, { timestamp: before }))).message).toMatch(/no snapshots available/);
    await live(url, 5);
    const second = await moment();
    await live(url, 5);
    expect(await rowsOf(url, { timestamp: first })).toBe(10);
    expect(await rowsOf(url, { timestamp: second })).toBe(15);
    expect(await rowsOf(url, { timestamp: new Date() })).toBe(20);
    expect((await rejection(rowsOf(url, { timestamp: before }))).reason).toBe("no-backup");
  });

  const OLD = process.env.LITESTREAM_0_5_5_BIN ?? "";
  // What 0.5.17 writes it can't read.
  const reads = OLD !== "" && !IS_0_3 && /0\.5\.10/.test(LITESTREAM);
  test.runIf(reads)("0.5.5, which can only restore (LITESTREAM_0_5_5_BIN)", async () => {
    const { url, before, first, second, after } = lives;
    expect(await rowsOf(url, { timestamp: first }, OLD)).toBe(10);
    expect(await rowsOf(url, { timestamp: second }, OLD)).toBe(15);
    expect(await rowsOf(url, { timestamp: after }, OLD)).toBe(20);
    expect((await rejection(rowsOf(url, { timestamp: before }, OLD))).message).toMatch(/the first one is of/);
  });
});

describe("to", () => {
  const path = newPath();
  const url = () => replicaUrl(s3.port, path);
  beforeAll(() => live(url(), 10));

  test("restores there, and leaves the database and its folder alone", async () => {
    const { config, files } = setUp(url());
    await writeRows(config.dbpath, 3, { after: "kill" });
    const before = files();
    const folder = join(tempFolder(), "new", "folder");
    const to = join(folder, "copy.db");
    expect(await config.restore({ to })).toBe(to);
    expect(readdirSync(folder)).toEqual(["copy.db"]);
    expect(rowsIn(to)).toBe(10);
    expect(files()).toEqual(before);
    expect(rowsIn(config.dbpath)).toBe(3);
  });

  test("does not even make the database's folder", async () => {
    const folder = join(tempFolder(), "data");
    const { config } = setUp(url(), { folder });
    await config.restore({ to: join(tempFolder(), "copy.db") });
    expect(existsSync(folder)).toBe(false);
  });

  test("a relative path is below the working directory", async () => {
    const folder = tempFolder();
    const to = relative(process.cwd(), join(folder, "copy.db"));
    expect(await setUp(url()).config.restore({ to })).toBe(join(folder, "copy.db"));
    expect(readdirSync(folder)).toEqual(["copy.db"]);
  });

  test("overwrites nothing, and takes nothing away", async () => {
    for (const existing of ["copy.db", "copy.db-wal", "copy.db-shm", "copy.db-journal"]) {
      // Without asking the store.
      const { config } = setUp(replicaUrl(await freePort(), path));
      const folder = tempFolder();
      writeFileSync(join(folder, existing), "mine");
      writeFileSync(join(folder, ".copy.db-litestream-s3"), "mine");
      const error = await config.restore({ to: join(folder, "copy.db") }).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(DatabaseExistsError);
      expect(error).toMatchObject({
        message: expect.stringMatching(new RegExp(`${existing} already exists.*another path for \`to\``)),
      });
      expect(readdirSync(folder)).toEqual([".copy.db-litestream-s3", existing]);
      expect(readFileSync(join(folder, existing), "utf8")).toBe("mine");
    }
  });

  test("ifDbNotExists keeps the one that is there", async () => {
    const { config } = setUp(url());
    const to = join(tempFolder(), "copy.db");
    await writeRows(to, 2);
    expect(await config.restore({ to, ifDbNotExists: true })).toBe(to);
    expect(rowsIn(to)).toBe(2);
  });

  test("one that comes to be there meanwhile, or a -wal, stays", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    for (const name of ["copy.db", "copy.db-wal"]) {
      const folder = tempFolder();
      proxy.fault = () => void writeFileSync(join(folder, name), "mine");
      const { config } = setUp(replicaUrl(proxy.port, path));
      await expect(config.restore({ to: join(folder, "copy.db") })).rejects.toBeInstanceOf(
        DatabaseExistsError,
      );
      expect(readdirSync(folder)).toEqual([name]);
      expect(readFileSync(join(folder, name), "utf8")).toBe("mine");
    }
  });

  test("a replica without a backup: a rejection, or no file with ifReplicaExists", async () => {
    const { config } = setUp(replicaUrl(s3.port, newPath()));
    const folder = tempFolder();
    const to = join(folder, "copy.db");
    expect((await rejection(config.restore({ to }))).message).toContain(to);
    expect(await config.restore({ to, ifReplicaExists: true })).toBe(to);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("a folder that can't be made", async () => {
    const file = join(tempFolder(), "file");
    writeFileSync(file, "");
    await expect(setUp(url()).config.restore({ to: join(file, "copy.db") })).rejects.toBeInstanceOf(
      FileSystemError,
    );
  });

  test("the database's own path is refused, whatever its name", async () => {
    const { config } = setUp(url());
    const link = join(tempFolder(), "link");
    symlinkSync(config.folder, link);
    for (const to of [config.dbpath, join(link, config.db)]) {
      await expect(config.restore({ to })).rejects.toBeInstanceOf(InvalidOptionError);
    }
  });
});

describe("integrityCheck", () => {
  /** 0.5.10 and newer. */
  const CHECKS = readFileSync(LITESTREAM).includes("post-restore integrity check");

  test.runIf(CHECKS)("a whole database passes", async () => {
    const url = replicaUrl(s3.port, newPath());
    await live(url, 10);
    expect(await rowsOf(url, { integrityCheck: "quick" })).toBe(10);
    expect(await rowsOf(url, { integrityCheck: "full", timestamp: new Date() })).toBe(10);
  });

  test.runIf(CHECKS)("a replica that holds a damaged database: rejects, and leaves nothing", async () => {
    const url = replicaUrl(s3.port, newPath());
    const { config } = setUp(url);
    await writeRows(config.dbpath, 100, { bytes: 2000, journal: "delete" });
    const fd = openSync(config.dbpath, "r+");
    writeSync(fd, Buffer.alloc(4096, 0xff), 0, 4096, 20 * 4096);
    closeSync(fd);
    expect(await config.timedReplicate(40)).toBe(true);

    for (const integrityCheck of ["quick", "full"] as const) {
      const { config, files, log } = setUp(url);
      const error = await rejection(config.restore({ integrityCheck, timeoutSeconds: 40 }));
      expect(error.reason).toBe("failed");
      expect(error.message).toMatch(/post-restore integrity check/);
      expect(files()).toEqual([]);
      expect(warnings(log)).toEqual([]);
    }
    // Without the check it is put into place.
    const unchecked = await setUp(url).config.restore();
    expect(() => rowsIn(unchecked)).toThrow(/integrity_check|malformed/);
  });

  test.runIf(!CHECKS)("is refused by name where litestream has none", async () => {
    const url = replicaUrl(s3.port, newPath());
    await live(url, 10);
    const { config, files } = setUp(url);
    const error = await config.restore({ integrityCheck: "quick" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LitestreamUnsupportedError);
    expect(error).toMatchObject({ message: expect.stringMatching(/`integrityCheck`.*0\.5\.10 or newer/) });
    expect(files()).toEqual([]);
  });
});

describe("another try", () => {
  const path = newPath();
  beforeAll(() => live(replicaUrl(s3.port, path), 10));

  async function faulty() {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    return { proxy, ...setUp(replicaUrl(proxy.port, path)) };
  }
  const isObject = (method = "", url = "") => method === "GET" && /\.(?:ltx|lz4)/.test(url);
  const isObjectLine = (line: string) => isObject(...line.split(" "));

  test.each([
    ["answers 503", { status: 503 }],
    ["has lost an object that it listed, as by a compaction", "gone"],
    ["cuts the connection", "reset"],
  ] as const)(
    "a store that %s a few times: restores, with nothing of a failed try beside the next",
    async (_, fault) => {
      const { proxy, config, log, files } = await faulty();
      // So many that 0.3, which tries a request four times, gives up; 0.5 tries ten times, and pauses ever longer.
      const times = fault !== "gone" && IS_0_3 ? 6 : 2;
      const again = () => warnings(log).filter((msg) => msg.includes("tried again")).length;
      let failures = 0;
      const targets = new Set<string>();
      let most = 0;
      proxy.fault = ({ method, url }) => {
        if (!isObject(method, url)) return undefined;
        const now = new Set(files().flatMap((name) => /\.restore-\d+-([0-9a-f]{8})/.exec(name)?.[1] ?? []));
        for (const target of now) targets.add(target);
        most = Math.max(most, now.size);
        failures += 1;
        // 0.5.18 plans anew by itself where an object has gone.
        return failures <= times || (fault === "gone" && again() === 0) ? fault : undefined;
      };
      await config.restore({ timeoutSeconds: 50 });
      expect(files().filter((name) => !name.startsWith("."))).toEqual(["db.sqlite"]);
      expect(rowsIn(config.dbpath)).toBe(10);
      expect(failures).toBeGreaterThan(times);
      expect(most).toBeLessThanOrEqual(1);
      // 0.5 tries a failing store again by itself.
      if (IS_0_3 || fault === "gone") expect(again()).toBeGreaterThan(0);
    },
  );

  // 0.5.18 restores up to the transaction that it has planned for, which may be in no object of its own any more.
  test.skipIf(IS_0_3)(
    "objects that a compaction replaces during the restore are not taken for no backup",
    async () => {
      const path = newPath();
      await live(replicaUrl(s3.port, path), 10);
      const proxy = await startFaultProxy(s3.port);
      onTestFinished(() => proxy.stop());
      let go = () => {};
      const replaced = new Promise<void>((resolve) => {
        go = resolve;
      });
      proxy.fault = ({ method, url }) => (isObject(method, url) ? { after: replaced } : undefined);
      const [one, other] = [setUp(replicaUrl(proxy.port, path)), setUp(replicaUrl(proxy.port, path))];
      const restores = Promise.all([
        one.config.restore({ timeoutSeconds: 50 }),
        other.config.restore({ timeoutSeconds: 50, ifReplicaExists: true }),
      ]);
      await until(() => proxy.requests.filter(isObjectLine).length >= 2);
      const old = await s3.keys(path);
      const { config } = setUp(replicaUrl(s3.port, path));
      await config.restore();
      await writeRows(config.dbpath, 5);
      for (const _ of ["a whole copy", "a snapshot"])
        await config.replicateOnce({ timeoutSeconds: 40, keepLocal: true });
      for (const key of old) await s3.expire(key);
      go();
      for (const dbpath of await restores) expect(rowsIn(dbpath)).toBe(15);
    },
  );

  test("what no other try mends is said at once", async () => {
    const { proxy, config, log } = await faulty();
    proxy.fault = () => ({ status: 403 });
    expect((await rejection(config.restore({ timeoutSeconds: 50 }))).reason).toBe("credentials");
    proxy.fault = () => ({ status: 404 });
    expect((await rejection(config.restore({ timeoutSeconds: 50 }))).reason).toBe("bucket");
    const nothing = setUp(replicaUrl(s3.port, newPath()));
    expect((await rejection(nothing.config.restore({ timeoutSeconds: 50 }))).reason).toBe("no-backup");
    expect([...warnings(log), ...warnings(nothing.log)].filter((msg) => msg.includes("again"))).toEqual([]);
  });

  test("when the time is up: what went wrong last", async () => {
    const { proxy, config, files } = await faulty();
    proxy.fault = ({ method, url }) => (isObject(method, url) ? "gone" : undefined);
    const error = await rejection(config.restore({ timeoutSeconds: 4 }));
    expect(error.message).toMatch(/not finished within 4 s: .*(?:NoSuchKey|does not exist)/);
    expect(files().filter((name) => !name.startsWith("."))).toEqual([]);
  });

  test("an abort between two tries ends it at once", async () => {
    const { proxy, config, log, files } = await faulty();
    proxy.fault = ({ method, url }) => (isObject(method, url) ? "gone" : undefined);
    const abort = new AbortController();
    const restored = rejection(config.restore({ signal: abort.signal }));
    await until(() => warnings(log).some((msg) => msg.includes("tried again")));
    abort.abort();
    expect((await restored).reason).toBe("aborted");
    expect(files().filter((name) => !name.startsWith("."))).toEqual([]);
  });

  test.runIf(IS_0_3)("without a timeout it gives up after some tries", async () => {
    const { config, log } = setUp(replicaUrl(await freePort(), path));
    const error = await rejection(config.restore());
    expect(error.reason).toBe("unreachable");
    expect(warnings(log).filter((msg) => msg.includes("tried again")).length).toBeGreaterThan(1);
  });
});
