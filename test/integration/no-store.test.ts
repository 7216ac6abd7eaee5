import { readdirSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { ANSWERS, startNoStore } from "../support/no-store.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { secretIn } from "../support/secrets.ts";
import { overtimeOf, setUp } from "../support/setup.ts";
import { rowsIn, writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

async function noStore(answer: Parameters<typeof startNoStore>[0]) {
  const server = await startNoStore(answer);
  onTestFinished(() => server.stop());
  return server;
}
const unsigned = ({ headers }: IncomingMessage) => headers.authorization === undefined;

describe("what answers with success and is no S3 store holds no backup, and gets none", () => {
  test.each(Object.entries(ANSWERS))("%s", async (_, answer) => {
    const server = await noStore(answer);
    const { config, files } = setUp(replicaUrl(server.port, "no-store/a.db"));
    await expect(config.restore({ ifReplicaExists: true, timeoutSeconds: 30 })).rejects.toMatchObject({
      reason: "unreachable",
      message: expect.stringMatching(/could not be restored .*Check .*REPLICA_ENDPOINT/s),
    });
    expect(files()).toEqual([]);

    await writeRows(config.dbpath, 3);
    expect(await config.replicateOnce({ timeoutSeconds: 1 })).toMatchObject({
      ok: false,
      reason: expect.stringMatching(/^(?:unreachable|timeout)$/),
    });
    expect(rowsIn(config.dbpath)).toBe(3);
    expect(server.requests.filter(({ method }) => method !== "GET")).toEqual([]);
    for (const { url, headers } of server.requests.filter(unsigned)) {
      expect(secretIn(JSON.stringify([url, headers]))).toBe(undefined);
    }
  });

  test("the message says what is there, and where", async () => {
    const server = await noStore(ANSWERS["a JSON document"]);
    const endpoint = `http://127.0.0.1:${server.port}`;
    const { config } = setUp("s3://backups/no-store/said.db", { endpoint });
    const words = `what answers at ${endpoint} is no S3 store: asked for the bucket, it gave status 200 and application/json`;
    await expect(config.restore({ ifReplicaExists: true, timeoutSeconds: 30 })).rejects.toThrow(words);
    // Nor is it `no-backup`: nobody who could know has said so.
    await expect(config.restore({ timeoutSeconds: 30 })).rejects.toMatchObject({ reason: "unreachable" });
  });
});

test("a server whose answer to the question never comes is no store, and holds up no call for longer than it may take", async () => {
  const server = await noStore((request, response) => {
    if (!unsigned(request)) return response.end();
    response.writeHead(200, { "content-type": "text/html" });
    response.write(" ");
  });
  const { config } = setUp(replicaUrl(server.port, "no-store/silent.db"));
  const { result, overtimeMs } = await overtimeOf(2, () =>
    config.restore({ ifReplicaExists: true, timeoutSeconds: 2 }).catch((error: unknown) => error),
  );
  expect(result).toMatchObject({ reason: expect.stringMatching(/^(?:unreachable|timeout)$/) });
  expect(overtimeMs).toBeLessThan(250);
});

describe("a first boot at a real store", () => {
  test("asks it once, without a signature", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const asked: (string | undefined)[] = [];
    proxy.fault = (request) => {
      if (unsigned(request)) asked.push(request.url);
      return undefined;
    };
    const { config } = setUp(replicaUrl(proxy.port, "no-store/real.db"));
    await config.restore({ ifReplicaExists: true, timeoutSeconds: 30 });
    expect(asked).toEqual(["/backups?list-type=2&max-keys=0"]);
    // Where there is a backup, the store has shown what it is.
    await writeRows(config.dbpath, 3);
    expect(await config.timedReplicate(30)).toBe(true);
    asked.length = 0;
    expect(rowsIn(await config.restore({ ifReplicaExists: true }))).toBe(3);
    expect(asked).toEqual([]);
  });

  test("where this process gets another answer than litestream, litestream asks for a bucket that can't exist", async () => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = (request) => (unsigned(request) ? "reset" : undefined);
    const { config } = setUp(replicaUrl(proxy.port, "no-store/other-way.db"));
    await config.restore({ ifReplicaExists: true, timeoutSeconds: 30 });
    expect(proxy.requests.filter((line) => /^GET \/litestream-s3-[0-9a-f]{12}\?/.test(line))).not.toEqual([]);
    await writeRows(config.dbpath, 3);
    expect(await config.timedReplicate(30)).toBe(true);
    expect(rowsIn(await config.restore())).toBe(3);
  });
});

const OLD = process.env.LITESTREAM_0_5_5_BIN ?? "";
test.skipIf(OLD === "")(
  "0.5.5 takes a refusal for an empty replica: its word is not believed (LITESTREAM_0_5_5_BIN)",
  async () => {
    const { config } = setUp(replicaUrl(s3.port, "no-store/deaf.db"), {}, { litestream: OLD });
    await expect(config.restore({ ifReplicaExists: true, timeoutSeconds: 30 })).rejects.toThrow(
      /install litestream/,
    );
    expect(readdirSync(config.folder)).toEqual([]);
  },
);
