import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ConfigS3, type RestoreError } from "../../src/index.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { KEY, type S3, startS3, TOKEN } from "../support/s3.ts";
import { memoryLogger, setUp, tempFolder } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

test("an address and a region in the URL lead to that store on every litestream", async () => {
  const parameters = `endpoint=127.0.0.1:${s3.port}&region=us-east-1`;
  const { config, files } = setUp(`s3://backups/settings/in-url.db?${parameters}`);
  expect(config).toMatchObject({ s3: "s3://backups/settings/in-url.db", region: "us-east-1" });
  await writeRows(config.dbpath, 30);
  expect(await config.timedReplicate(30)).toBe(true);
  expect(files()).toEqual([]);
  expect((await s3.keys("settings/in-url.db")).length).toBeGreaterThan(0);
  expect(rowsIn(await config.restore())).toBe(30);
});

test("where the store refuses the settings, a secret that was cut in the env file is named", async () => {
  const folder = tempFolder();
  const envFile = join(folder, "settings.env");
  // A store that checks no signature knows no such bucket.
  writeFileSync(
    envFile,
    `LITESTREAM_ACCESS_KEY_ID=${KEY}\nLITESTREAM_SECRET_ACCESS_KEY=${TOKEN}x#rest\n` +
      `REPLICA_URL=s3://no-such-bucket/x.db\nREPLICA_ENDPOINT=http://127.0.0.1:${s3.port}\nDB_FOLDER=${folder}\n`,
  );
  const options = { envFile, env: { PATH: process.env.PATH }, litestream: LITESTREAM };
  const { logger } = memoryLogger();
  const config = new ConfigS3({}, { ...options, logger });
  const hint = /LITESTREAM_SECRET_ACCESS_KEY has a # right behind its value in the env file/;

  const error = await config.restore().catch((reason: unknown) => reason);
  expect(["credentials", "bucket"]).toContain((error as RestoreError).reason);
  expect((error as RestoreError).message).toMatch(hint);
  expect((error as RestoreError).message).not.toContain(TOKEN);

  await writeRows(config.dbpath, 3);
  const answer = await config.replicateOnce({ timeoutSeconds: 30 });
  expect(answer).toMatchObject({ ok: false, message: expect.stringMatching(hint) });
  expect(JSON.stringify(answer)).not.toContain(TOKEN);
});
