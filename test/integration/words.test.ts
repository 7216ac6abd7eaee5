import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type ReplicateResult, RestoreError } from "../../src/index.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IS_0_3 } from "../support/litestream.ts";
import { freePort, KEY, replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const url = () => replicaUrl(s3.port, "words/a.db");

async function refused(restored: Promise<unknown>): Promise<RestoreError> {
  const error = await restored.catch((reason: unknown) => reason);
  if (error instanceof RestoreError) return error;
  throw new Error(`no RestoreError, but ${error}`);
}

describe("what is wrong with the keys is not said of the bucket", () => {
  const FAUXQS = "fauxqs accepts any key and region: runs on versitygw in the matrix";

  test.for([
    ["the secret is in the place of the key", TOKEN, KEY],
    ["the key has a slash", "AKID/TESTTESTTEST", TOKEN],
  ] as const)("%s", async ([_, key, token], { skip }) => {
    skip(!s3.checksSignatures, FAUXQS);
    const { config } = setUp(url(), { key, token });
    const error = await refused(config.restore({ timeoutSeconds: 50 }));
    expect(error.reason).toBe("credentials");
    expect(error.message).toContain("LITESTREAM_ACCESS_KEY_ID");
    expect(error.message).not.toContain(TOKEN);
  });

  test("a temporary key has a session token, which is named", async ({ skip }) => {
    skip(!s3.checksSignatures, FAUXQS);
    const { config } = setUp(url(), { key: "ASIATESTTESTTEST" });
    const error = await refused(config.restore({ timeoutSeconds: 50 }));
    expect(error.reason).toBe("credentials");
    expect(error.message).toContain("session token");
  });

  test("another region than the store's is one of the bucket", async ({ skip }) => {
    skip(!s3.checksSignatures, FAUXQS);
    const { config } = setUp(url(), { region: "eu-central-1" });
    const error = await refused(config.restore({ timeoutSeconds: 50 }));
    expect(error.reason).toBe("bucket");
    expect(error.message).toContain("REPLICA_REGION");
  });
});

describe("a refusal with 403 that is not one of the keys", () => {
  const answering = async (code: string) => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    proxy.fault = () => ({ status: 403, code });
    return setUp(replicaUrl(proxy.port, "words/b.db")).config;
  };

  test("a bucket that is full", async () => {
    const config = await answering("QuotaExceeded");
    const error = await refused(config.restore({ timeoutSeconds: 50 }));
    expect(error.reason).toBe("failed");
    expect(error.message).toContain("the store has no room left");
  });

  // 0.5 takes the time from the store's answer, and tries again.
  test.runIf(IS_0_3)("a clock that is wrong", async () => {
    const config = await answering("RequestTimeTooSkewed");
    const error = await refused(config.restore({ timeoutSeconds: 50 }));
    expect(error.reason).toBe("failed");
    expect(error.message).toContain("this machine's clock differs from the store's");
  });
});

describe("a store that gives no answer", () => {
  // 0.5 tries again in silence: these take their whole time, side by side.
  const SECONDS = 15;
  let plain: ReplicateResult;
  let behindProxy: ReplicateResult;
  beforeAll(async () => {
    const attempt = async (endpoint: string, env: Record<string, string> = {}) => {
      const settings = { endpoint, region: "us-east-1", folder: tempFolder("hook") };
      const { config } = setUp("s3://backups/words/c.db", settings, {
        env: { PATH: process.env.PATH, ...env },
      });
      await writeRows(config.dbpath, 5);
      return await config.replicateOnce({ timeoutSeconds: SECONDS });
    };
    const proxy = `http://me:hunter22@127.0.0.1:${await freePort()}`;
    [plain, behindProxy] = await Promise.all([
      attempt(`https://127.0.0.1:${s3.port}`),
      attempt("http://store.example.com", { HTTP_PROXY: proxy }),
    ]);
  });

  test("since its port speaks no TLS: that is not taken for a slow one", () => {
    expect(plain).toMatchObject({ ok: false, reason: "unreachable" });
    expect(plain).toMatchObject({ message: expect.stringContaining("begins with http://") });
  });

  test("since a proxy stands before it: the variable is named, and not what it holds", () => {
    expect(behindProxy).toMatchObject({ ok: false, reason: "unreachable" });
    expect(behindProxy).toMatchObject({ message: expect.stringContaining("the proxy in HTTP_PROXY") });
    expect(JSON.stringify(behindProxy)).not.toContain("hunter22");
  });
});

test("an encrypted database is told from a wrong path", async () => {
  const { config } = setUp(url());
  writeFileSync(config.dbpath, Buffer.from(Array.from({ length: 8192 }, (_, at) => (at * 151 + 7) % 256)));
  const result = await config.replicateOnce({ timeoutSeconds: 50 });
  expect(result).toMatchObject({ ok: false, reason: "not-a-database" });
  expect(result).toMatchObject({ message: expect.stringContaining("SQLCipher") });
});
