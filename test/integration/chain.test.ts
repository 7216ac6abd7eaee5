import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RestoreError } from "../../src/index.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

// 0.3 keeps a whole copy for each run, so that nothing older is needed.
describe.skipIf(IS_0_3)("on 0.5, objects of the backup vanish from the bucket", () => {
  /** Three lives of 10 rows each, and the fourth one under way with 10 more. */
  async function fourthLife(path: string) {
    const url = replicaUrl(s3.port, path);
    const app = setUp(url);
    for (let life = 1; life <= 3; life += 1) {
      await app.config.restore({ ifReplicaExists: true });
      await writeRows(app.config.dbpath, 10);
      expect(await app.config.timedReplicate(30)).toBe(true);
    }
    // What the third life may have added for the boots to come would do without the rest.
    for (const key of await s3.keys(path)) if (key.includes("/0009/")) await s3.expire(key);
    await app.config.restore();
    await writeRows(app.config.dbpath, 10);
    return { ...app, url };
  }
  const object = (path: string, txid: number) => {
    const id = txid.toString(16).padStart(16, "0");
    return `${path}/0000/${id}-${id}.ltx`;
  };

  test.each([
    ["the first one", 1],
    ["one in the middle", 2],
  ])("%s: a full copy goes up before the local database goes, with a warning", async (_, txid) => {
    const path = `chain/mended-${txid}.db`;
    const { config, log, url } = await fourthLife(path);
    await s3.expire(object(path, txid));
    log.lines.length = 0;
    expect(await config.timedReplicate(30)).toBe(true);
    expect(log.at(40)).toEqual([
      expect.objectContaining({ msg: expect.stringContaining("objects of the backup are missing") }),
    ]);
    expect(rowsIn(await setUp(url).config.restore({ ifReplicaExists: true }))).toBe(40);
  });

  /** The fourth life, after a third one whose end a snapshot has also: the newest object of level 0 is 3, and 9 is a snapshot of it. */
  async function fourthLifeAfterSnapshot(path: string) {
    const fourth = await fourthLife(path);
    const { config } = fourth;
    await config.replicateOnce({ timeoutSeconds: 30, keepLocal: true });
    // Where litestream has been before, it begins with a snapshot.
    expect(await config.timedReplicate(30)).toBe(true);
    await config.restore();
    await writeRows(config.dbpath, 10);
    const newest = (await s3.keys(path)).filter((key) => key.includes("/0000/")).sort();
    expect((await s3.keys(path)).some((key) => key.includes("/0009/"))).toBe(true);
    return { ...fourth, newest };
  }

  test("the newest one, which a snapshot also has: the old snapshot does not win over what comes", async () => {
    const path = "chain/newest.db";
    const { config, log, url, newest } = await fourthLifeAfterSnapshot(path);
    await s3.expire(newest.at(-1) ?? "");
    log.lines.length = 0;
    expect(await config.timedReplicate(30)).toBe(true);
    expect(log.at(40)).toEqual([
      expect.objectContaining({ msg: expect.stringContaining("objects of the backup are missing") }),
    ]);
    expect(rowsIn(await setUp(url).config.restore())).toBe(50);
  });

  test("the newest ones, which a snapshot goes beyond: nothing is deleted, and it says why", async () => {
    const path = "chain/ahead.db";
    const { config, url, newest } = await fourthLifeAfterSnapshot(path);
    for (const key of newest.slice(-2)) await s3.expire(key);
    const result = await config.replicateOnce({ timeoutSeconds: 30 });
    expect(result).toMatchObject({
      ok: false,
      reason: "failed",
      message: expect.stringMatching(/the replica goes on after what was uploaded now.*use a new path/s),
    });
    const elsewhere = setUp(`${url}-new`, { folder: config.folder });
    // litestream's folder knows the newest objects of the old path only.
    expect(await elsewhere.config.timedReplicate(30)).toBe(true);
    expect(rowsIn(await setUp(`${url}-new`).config.restore())).toBe(50);
  });

  test("a backup without its beginning is not taken for no backup", async () => {
    const path = "chain/no-beginning.db";
    const { url } = await fourthLife(path);
    await s3.expire(object(path, 1));
    const { config, files } = setUp(url);
    const error = await config.restore({ ifReplicaExists: true }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RestoreError);
    expect(error).toMatchObject({
      message: expect.stringMatching(/beginning is missing|no matching backup/),
    });
    expect(files()).toEqual([]);
  });
});
