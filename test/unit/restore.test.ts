import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { InvalidOptionError, type RestoreOptions } from "../../src/index.ts";
import { requestOf } from "../../src/litestream/restore.ts";
import { setUp, tempFolder } from "../support/setup.ts";

const TOKEN = "a/secret+of/some+length";
const create = (folder = tempFolder()) => setUp("s3://x/x.db", { folder, token: TOKEN }).config;

describe("an option of restore() that can't be meant is refused, before anything is done", () => {
  test.each<[string, unknown]>([
    ["no time", "yesterday"],
    ["no time zone", "2026-11-24T12:00:00"],
    ["a day", "2026-11-24"],
    ["a day that does not exist", "2026-02-31T00:00:00Z"],
    ["an hour that does not exist", "2026-11-24T25:00:00Z"],
    ["nothing", ""],
    ["an invalid Date", new Date(Number.NaN)],
    ["a Date of no year of ours", new Date(8.64e15)],
    ["a number, which might be seconds or milliseconds", 1764072000],
    ["null", null],
  ])("timestamp: %s", async (_, timestamp) => {
    const folder = join(tempFolder(), "data");
    const restored = create(folder).restore({ timestamp } as RestoreOptions);
    await expect(restored).rejects.toBeInstanceOf(InvalidOptionError);
    await expect(restored).rejects.toMatchObject({
      message: expect.stringMatching(/`timestamp`.*time zone such as 2026-11-24T12:00:00Z/),
    });
    expect(existsSync(folder)).toBe(false);
  });

  test.each(["Quick", "none", true, "", null, {}])("integrityCheck: %j", async (integrityCheck) => {
    await expect(create().restore({ integrityCheck } as RestoreOptions)).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: '`integrityCheck` must be "quick" or "full".',
    });
  });

  test.each<[unknown, RegExp]>([
    ["", /file/],
    ["/data/", /file/],
    ["..", /file/],
    ["data/.", /file/],
    ["/data/a?b.db", /\?, # or %/],
    ["/data/a\0.db", /control character/],
    ["/data/\ud800.db", /surrogate/],
    ["/data/a.db-wal", /SQLite's own/],
    [`/data/${TOKEN}/a.db`, /LITESTREAM_SECRET_ACCESS_KEY/],
    [7, /string/],
    [null, /string/],
    [new URL("file:///data/a.db"), /string/],
  ])("to: %j", async (to, words) => {
    const error = await create()
      .restore({ to } as RestoreOptions)
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InvalidOptionError);
    expect(error).toMatchObject({ message: expect.stringMatching(words) });
    expect(String(error)).not.toContain(TOKEN);
  });

  test("takeOver, which says nothing with `to`", async () => {
    await expect(create().restore({ to: "copy.db", takeOver: true })).rejects.toMatchObject({
      code: "OPTION_INVALID",
      message: expect.stringContaining("`takeOver`"),
    });
  });
});

test.each<[string | Date, string]>([
  ["2026-11-24T12:00:00Z", "2026-11-24T12:00:00.000Z"],
  ["2026-11-24T12:00Z", "2026-11-24T12:00:00.000Z"],
  ["2026-11-24T12:00:00.5+01:00", "2026-11-24T11:00:00.500Z"],
  ["2026-03-01T01:00:00+0200", "2026-02-28T23:00:00.000Z"],
  [new Date(1_700_000_000_123), "2023-11-14T22:13:20.123Z"],
])("the moment %s", (timestamp, iso) => {
  expect(requestOf({ timestamp }).moment?.toISOString()).toBe(iso);
});
