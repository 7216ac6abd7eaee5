import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { noteBooted, noteBooting, noteRemoved, QUESTION_MS } from "../../src/known-files.ts";
import { memoryLogger, tempFolder } from "../support/setup.ts";

describe("restore() has left no file, as on a first boot", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
  afterEach(() => void vi.useRealTimers());

  test.each<[after: string, then: (dbpath: string) => void, warned: boolean]>([
    ["nothing", () => {}, true],
    ["the app has opened it", (dbpath) => writeFileSync(dbpath, ""), false],
    ["restore() is called again", noteBooting, false],
    ["delete() is called", noteRemoved, false],
  ])("after a while the log asks for the file; since then: %s", (_, then, warned) => {
    const dbpath = join(tempFolder(), "db.sqlite");
    const { logger, lines } = memoryLogger();
    noteBooting(dbpath);
    noteBooted({ dbpath, logger });
    then(dbpath);
    vi.advanceTimersByTime(QUESTION_MS - 1);
    expect(lines).toEqual([]);
    vi.advanceTimersByTime(1);
    const question = expect.stringMatching(
      new RegExp(`^nothing is at ${dbpath}, 10 s after restore\\(\\).*\\?`),
    );
    expect(lines).toEqual(warned ? [expect.objectContaining({ level: 40, msg: question })] : []);
  });
});
