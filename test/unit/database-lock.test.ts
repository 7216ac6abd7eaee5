import { readlinkSync, symlinkSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { lockDatabase, withDatabaseLock } from "../../src/database-lock.ts";
import { CutShort } from "../../src/litestream/limit.ts";
import { deadPid } from "../support/processes.ts";
import { tempFolder } from "../support/setup.ts";

let dbpath: string;
beforeEach(() => {
  dbpath = join(tempFolder(), "a.db");
});

describe("the lock", () => {
  const lock = () => join(dbpath, "..", ".a.db-litestream-s3.lock");

  test("is held until it is released", () => {
    const release = lockDatabase(dbpath);
    expect(release).toBeDefined();
    expect(lockDatabase(dbpath)).toBeUndefined();
    release?.();
    const again = lockDatabase(dbpath);
    expect(again).toBeDefined();
    again?.();
  });

  test("of a process that is gone is none", () => {
    symlinkSync(`${deadPid()} 123`, lock());
    expect(lockDatabase(dbpath)).toBeDefined();
    expect(readlinkSync(lock())).toMatch(new RegExp(`^${process.pid} `));
  });

  test("of an earlier process with the same id is none", () => {
    symlinkSync(`${process.pid} 1`, lock());
    expect(lockDatabase(dbpath)).toBeDefined();
  });

  test("that has passed to somebody else is not taken away by the release", () => {
    const release = lockDatabase(dbpath);
    unlinkSync(lock());
    symlinkSync("1 somebody else", lock());
    release?.();
    expect(readlinkSync(lock())).toBe("1 somebody else");
  });

  test("of a process that lives is one", () => {
    lockDatabase(dbpath);
    const owner = readlinkSync(lock());
    expect(lockDatabase(dbpath)).toBeUndefined();
    expect(readlinkSync(lock())).toBe(owner);
  });
});

describe("work with the lock", () => {
  const never = new AbortController().signal;

  test("waits for the work before it, and comes one at a time", async () => {
    const order: string[] = [];
    const work = (name: string) =>
      withDatabaseLock(dbpath, never, async () => {
        order.push(`${name} begins`);
        await new Promise((done) => setImmediate(done));
        order.push(`${name} ends`);
        return name;
      });
    expect(await Promise.all([work("a"), work("b")])).toEqual(["a", "b"]);
    expect(order).toEqual(["a begins", "a ends", "b begins", "b ends"]);
  });

  test("gives it back where it fails", async () => {
    const fail = () => {
      throw new Error("no");
    };
    await expect(withDatabaseLock(dbpath, never, fail)).rejects.toThrow("no");
    expect(await withDatabaseLock(dbpath, never, () => 1)).toBe(1);
  });

  test("is not begun where the signal comes first; the error says what it waited for", async () => {
    const release = lockDatabase(dbpath);
    const limit = new AbortController();
    let begun = false;
    const waiting = withDatabaseLock(dbpath, limit.signal, () => {
      begun = true;
    });
    limit.abort(new CutShort("timeout"));
    await expect(waiting).rejects.toMatchObject({
      reason: "timeout",
      waiting: expect.stringContaining("another call, perhaps in another process"),
    });
    release?.();
    await expect(withDatabaseLock(dbpath, limit.signal, () => undefined)).rejects.toBeInstanceOf(CutShort);
    expect(begun).toBe(false);
    expect(lockDatabase(dbpath)).toBeDefined();
  });
});
