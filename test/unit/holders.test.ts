import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, linkSync, openSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { OpenDatabase, wordsFor } from "../../src/holders.ts";
import { lockersIn } from "../../src/proc.ts";
import { tempFolder } from "../support/setup.ts";

describe("the list of locks", () => {
  const INODES = new Set(["fe:00:9980235", "00:33:9980235"]);
  const pidsIn = (...lines: string[]) => [...lockersIn(`${lines.join("\n")}\n`, INODES)];

  test("names who has a lock on the file, by each device that it may be on", () => {
    expect(
      pidsIn(
        "1: POSIX  ADVISORY  READ 3958 fe:00:9980235 1073741826 1073742335",
        "2: FLOCK  ADVISORY  WRITE 77 00:33:9980235 0 EOF",
        "3: POSIX  ADVISORY  READ 3958 fe:00:9980235 128 128",
      ),
    ).toEqual([3958, 77]);
  });

  test("names who waits for one", () => {
    expect(pidsIn("12: -> POSIX  ADVISORY  WRITE 4 fe:00:9980235 0 EOF")).toEqual([4]);
    expect(pidsIn("12:   -> POSIX  ADVISORY  WRITE 4 fe:00:9980235 0 EOF")).toEqual([4]);
  });

  test("leaves an owner without a name, of an open file or in another namespace, as 0", () => {
    expect(pidsIn("1: OFDLCK ADVISORY  READ -1 fe:00:9980235 1000 1001")).toEqual([0]);
    expect(pidsIn("1: POSIX  ADVISORY  READ 0 fe:00:9980235 1000 1001")).toEqual([0]);
  });

  test("has nobody for another device, another inode, or none", () => {
    expect(
      pidsIn(
        "1: POSIX  ADVISORY  READ 3958 fe:01:9980235 0 EOF",
        "2: POSIX  ADVISORY  READ 3958 fe:00:99802 0 EOF",
        "3: POSIX  ADVISORY  READ 9980235 fe:00:1 9980235 EOF",
        "4: LEASE  ACTIVE    READ 12 <none>:0 0 EOF",
        "",
      ),
    ).toEqual([]);
  });
});

describe("a file that another process has open", () => {
  const { signal } = new AbortController();

  /** A process that has the file open, until it is killed. */
  async function startHolder(path: string): Promise<ChildProcess> {
    const script = join(tempFolder(), "hold.mjs");
    writeFileSync(
      script,
      'import { openSync } from "node:fs"; openSync(process.argv[2], "r+"); console.log("open"); setInterval(() => {}, 1000);',
    );
    const child = spawn(process.execPath, [script, path, "--token=secret", "secret"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    await once(child.stdout, "data");
    return child;
  }

  function newFile(): string {
    const path = join(tempFolder(), "a.db");
    writeFileSync(path, "a database");
    return path;
  }

  test("is found by the descriptor alone, wherever it is moved, and until that process ends", async () => {
    const path = newFile();
    const database = new OpenDatabase(path);
    expect(await database.others(signal)).toEqual([]);
    expect(database.nearestOthers(Number.POSITIVE_INFINITY)).toEqual([]);
    const child = await startHolder(path);
    const holders = [{ pid: child.pid, program: "node hold.mjs" }];
    expect(await database.others(signal)).toEqual(holders);
    renameSync(path, `${path}.removing`);
    expect(database.nearestOthers(Number.POSITIVE_INFINITY)).toEqual(holders);
    linkSync(`${path}.removing`, path);
    unlinkSync(`${path}.removing`);
    expect(database.isOpenIn(holders)).toBe(true);
    expect(await database.others(signal)).toEqual(holders);
    expect(wordsFor(holders)).toBe(`node hold.mjs (pid ${child.pid})`);
    child.kill("SIGKILL");
    // Without a turn of the event loop nobody is told of its end: it is a zombie then.
    while (database.isOpenIn(holders));
    expect(child.signalCode).toBeNull();
    expect(database.nearestOthers(Number.POSITIVE_INFINITY)).toEqual([]);
    expect(await database.others(signal)).toEqual([]);
  });

  test("is not a file of the same name elsewhere, nor one that has come into its place", async () => {
    const [path, other] = [newFile(), newFile()];
    const database = new OpenDatabase(path);
    await startHolder(other);
    renameSync(path, `${path}.removing`);
    writeFileSync(path, "another database");
    await startHolder(path);
    expect(await database.others(signal)).toEqual([]);
    expect(database.nearestOthers(Number.POSITIVE_INFINITY)).toEqual([]);
  });

  test("is not one that this process has open itself", async () => {
    const path = newFile();
    const database = new OpenDatabase(path);
    expect(database.isOpenHere()).toBe(false);
    const fd = openSync(path, "r");
    expect(database.isOpenHere()).toBe(true);
    expect(await database.others(signal)).toEqual([]);
    closeSync(fd);
    expect(database.isOpenHere()).toBe(false);
  });

  test("that is not there is open nowhere", async () => {
    const database = new OpenDatabase(join(tempFolder(), "none.db"));
    expect(await database.others(signal)).toEqual([]);
    expect(database.isOpenHere()).toBe(false);
  });
});

test("many processes are a few names and a number", () => {
  const holders = [1, 2, 3, 4, 5].map((pid) => ({ pid, program: `p${pid}` }));
  expect(wordsFor(holders)).toBe("p1 (pid 1), p2 (pid 2), p3 (pid 3) and 2 more");
  expect(wordsFor([{ pid: undefined, program: undefined }])).toBe("a process that can't be named");
  expect(wordsFor([{ pid: 7, program: undefined }])).toBe("a process (pid 7)");
});
