import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, renameSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test, vi } from "vitest";
import { withDatabaseLock } from "../../src/database-lock.ts";
import { CutShort } from "../../src/litestream/limit.ts";
import { tempFolder } from "../support/setup.ts";

const logger = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
let folder: string;
let database: { dbpath: string; logger: typeof logger };
beforeEach(() => {
  vi.clearAllMocks();
  folder = tempFolder();
  database = { dbpath: join(folder, "a.db"), logger };
});
const never = () => new AbortController().signal;

/** Takes the lock and keeps it. */
async function keep(of = database): Promise<() => Promise<void>> {
  let end = () => {};
  let taken: Promise<void> | undefined;
  await new Promise<void>((begun) => {
    taken = withDatabaseLock(of, never(), () => {
      begun();
      return new Promise<void>((done) => {
        end = done;
      });
    });
  });
  return async () => {
    end();
    await taken;
  };
}

/** Whether somebody has it. */
async function isTaken(of = database): Promise<boolean> {
  const limit = new AbortController();
  const attempt = withDatabaseLock(of, limit.signal, () => false);
  setTimeout(() => limit.abort(new CutShort("timeout")), 100);
  return await attempt.catch(() => true);
}

test("work waits for the work before it, and comes one at a time", async () => {
  const order: string[] = [];
  const work = (name: string) =>
    withDatabaseLock(database, never(), async () => {
      order.push(`${name} begins`);
      await new Promise((done) => setImmediate(done));
      order.push(`${name} ends`);
      return name;
    });
  expect(await Promise.all([work("a"), work("b")])).toEqual(["a", "b"]);
  expect([order.slice(0, 2), order.slice(2)].sort()).toEqual([
    ["a begins", "a ends"],
    ["b begins", "b ends"],
  ]);
  expect(logger.info).toHaveBeenCalledExactlyOnceWith(
    { dbpath: database.dbpath },
    expect.stringContaining("waiting"),
  );
});

test("is given back where the work fails", async () => {
  const fail = () => {
    throw new Error("no");
  };
  await expect(withDatabaseLock(database, never(), fail)).rejects.toThrow("no");
  expect(await withDatabaseLock(database, never(), () => 1)).toBe(1);
});

test("work is not begun where the signal comes first; the error says what it waited for", async () => {
  const release = await keep();
  const limit = new AbortController();
  let begun = false;
  const waiting = withDatabaseLock(database, limit.signal, () => {
    begun = true;
  });
  limit.abort(new CutShort("timeout"));
  await expect(waiting).rejects.toMatchObject({
    reason: "timeout",
    waiting: expect.stringContaining("another call, perhaps in another process"),
  });
  await release();
  // Nor where the lock is free.
  const late = withDatabaseLock(database, limit.signal, () => {
    begun = true;
  });
  await expect(late).rejects.toMatchObject({ reason: "timeout", waiting: undefined });
  expect(begun).toBe(false);
  expect(await isTaken()).toBe(false);
});

test("is one for each database", async () => {
  const release = await keep();
  expect(await isTaken()).toBe(true);
  expect(await isTaken({ dbpath: join(folder, "b.db"), logger })).toBe(false);
  const elsewhere = tempFolder();
  expect(await isTaken({ dbpath: join(elsewhere, "a.db"), logger })).toBe(false);
  await release();
});

test("is the same by every path to the folder", async () => {
  const link = join(tempFolder(), "link");
  symlinkSync(folder, link);
  const release = await keep();
  expect(await isTaken({ dbpath: join(link, "a.db"), logger })).toBe(true);
  await release();
});

test("a folder that is made anew has a new one, and the old one's end does not give that back", async () => {
  const release = await keep();
  renameSync(folder, `${folder}.old`);
  mkdirSync(folder);
  const again = await keep();
  await release();
  expect(await isTaken()).toBe(true);
  await again();
});

test("needs no folder, and leaves nothing in one", async () => {
  const nowhere = { dbpath: join(folder, "missing", "a.db"), logger };
  expect(await withDatabaseLock(nowhere, never(), () => 1)).toBe(1);
  const release = await keep();
  expect(readdirSync(folder)).toEqual([]);
  await release();
});

test.runIf(process.platform === "linux")("a process that has the descriptor too keeps it", async () => {
  const other = await withDatabaseLock(database, never(), (keep) => {
    const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore", keep] });
    return { end: () => child.stdin?.end(), ended: once(child, "exit") };
  });
  expect(await isTaken()).toBe(true);
  other.end();
  await other.ended;
  expect(await isTaken()).toBe(false);
});
