import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeLitestream } from "../support/fake-litestream.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

const ROWS = 40;
let s3: S3;
const url = () => replicaUrl(s3.port, "damaged/a.db");
beforeAll(async () => {
  s3 = await startS3();
  const { config } = setUp(url(), { folder: tempFolder("hook") });
  await writeRows(config.dbpath, ROWS, { bytes: 2000 });
  expect(await config.timedReplicate(30)).toBe(true);
});
afterAll(() => s3.stop());

/** A litestream after whose restore something happens to the file. */
const restoring = (command: string) =>
  fakeLitestream(`${LITESTREAM} "$@" || exit; while [ "$1" != -o ]; do shift; done; ${command}`, "restore");

test.each([
  [
    "has lost its last page",
    'truncate -s -4096 "$2"',
    /its header says \d+ pages of 4096 bytes, and it has \d+ bytes/,
  ],
  [
    "has no SQLite header",
    'printf "no database, or one that is encrypted" | dd conv=notrunc of="$2" 2>&1',
    /does not begin as/,
  ],
] as const)("a restored file that %s is not put into place", async (_, command, words) => {
  const { config, files } = setUp(url(), {}, { litestream: restoring(command) });
  await expect(config.restore({ ifReplicaExists: true, timeoutSeconds: 30 })).rejects.toMatchObject({
    code: "RESTORE_FAILED",
    reason: "failed",
    message: expect.stringMatching(words),
  });
  expect(files()).toEqual([]);
  const to = join(tempFolder(), "copy.db");
  await expect(config.restore({ to, timeoutSeconds: 30 })).rejects.toMatchObject({ reason: "failed" });
  expect(readdirSync(join(to, ".."))).toEqual([]);
});

test("a restored file that goes on behind its pages is put into place, with a warning: SQLite ignores that", async () => {
  const { config, log } = setUp(url(), {}, { litestream: restoring('truncate -s +8192 "$2"') });
  expect(rowsIn(await config.restore({ timeoutSeconds: 30 }))).toBe(ROWS);
  expect(log.at(40)).toContainEqual(expect.objectContaining({ bytes: 8192 }));
});
