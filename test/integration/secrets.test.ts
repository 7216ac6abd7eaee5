import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { freePort, KEY, replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { processesWith, setUp } from "../support/setup.ts";
import { writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

const FORMS = [KEY, TOKEN].flatMap((secret) => [
  secret,
  encodeURIComponent(secret),
  Buffer.from(secret).toString("base64"),
]);
function expectNoSecret(where: string, text: string) {
  for (const form of FORMS) expect(text.includes(form), `a secret in ${where}`).toBe(false);
}
function everythingIn(value: unknown): string {
  const error = value instanceof Error ? `${value.message}${value.stack}` : "";
  return error + inspect(value, { showHidden: true, depth: 20, getters: false }) + JSON.stringify(value);
}

test("no secret in the log at trace level, in the environment's way to argv, in errors, results or files", async () => {
  const proxy = await startFaultProxy(s3.port);
  onTestFinished(() => proxy.stop());
  const { config, log } = setUp(replicaUrl(proxy.port, "secrets/a.db"));
  await writeRows(config.dbpath, 5);

  // A store that tells what it was given, in the words of its refusal.
  const seen: string[] = [];
  proxy.fault = ({ method, headers }) => {
    seen.push(String(headers.authorization));
    return method === "PUT" ? "stall" : undefined;
  };
  const abort = new AbortController();
  const cut = config.replicateOnce({ timeoutSeconds: 50, signal: abort.signal });
  await proxy.nextRequest((request) => request.startsWith("PUT"));
  expect(seen.join()).toContain(KEY); // the credentials did reach litestream
  const argv = processesWith(config.dbpath);
  expect(argv).toHaveLength(1);
  expectNoSecret("argv", argv.join("\n"));
  for (const name of readdirSync(config.folder, { recursive: true, withFileTypes: true })) {
    if (name.isFile()) expectNoSecret(name.name, readFileSync(join(name.parentPath, name.name), "latin1"));
  }
  abort.abort();
  expectNoSecret("a result", everythingIn(await cut));

  proxy.fault = () => ({ status: 403 });
  expectNoSecret("a result", everythingIn(await config.replicateOnce({ timeoutSeconds: 30 })));
  const empty = setUp(replicaUrl(proxy.port, "secrets/b.db"));
  expectNoSecret("an error", everythingIn(await empty.config.restore().catch((error: unknown) => error)));
  const unreachable = setUp(replicaUrl(await freePort(), "secrets/b.db"));
  const error = await unreachable.config.restore({ timeoutSeconds: 1 }).catch((reason: unknown) => reason);
  expectNoSecret("an error", everythingIn(error));
  for (const { lines } of [log, empty.log, unreachable.log]) expectNoSecret("the log", JSON.stringify(lines));
});

test("what litestream prints of a secret is redacted, in every form", async () => {
  const script = `printf '%s\\n' "$LITESTREAM_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY"; exit 1`;
  const { config, log } = setUp(replicaUrl(s3.port, "secrets/c.db"), {}, { litestream: "/bin/sh" });
  await config.getResultOnTimeout(["litestream", "-c", script], 10);
  expect(log.lines.map(({ line }) => line)).toContain("[redacted] and [redacted]");
  expectNoSecret("the log", JSON.stringify(log.lines));
});

test("a line that is too long is not cut in the middle of a secret", async () => {
  const token = "tOkEn".repeat(40);
  const { config, log } = setUp(replicaUrl(s3.port, "secrets/c.db"), { token }, { litestream: "/bin/sh" });
  const script = `yes "$AWS_SECRET_ACCESS_KEY" | head -n 2000 | tr -d '\\n'; echo; echo after it`;
  await config.getResultOnTimeout(["litestream", "-c", script], 30);
  const [long, after] = log.lines.map(({ line }) => String(line));
  expect(long).toMatch(/^(?:\[redacted\])+/);
  expect(long).not.toContain("tOkEn");
  expect(after).toBe("after it");
});

test("the app's own AWS identity does not reach litestream, and its certificates do", async () => {
  const env = {
    PATH: process.env.PATH,
    AWS_ACCESS_KEY_ID: "SOMEBODY-ELSE",
    AWS_SECRET_ACCESS_KEY: "somebody else's",
    AWS_SESSION_TOKEN: "session",
    AWS_SECURITY_TOKEN: "security",
    AWS_PROFILE: "profile",
    AWS_CA_BUNDLE: "/etc/bundle.pem",
    LOG_LEVEL: "debug",
    DATABASE_PASSWORD: "the app's",
    AWS_REGION: "eu-central-1",
  };
  const { config } = setUp(replicaUrl(s3.port, "secrets/d.db"), {}, { litestream: "/usr/bin/env", env });
  const [stdout] = await config.getResultOnTimeout(["litestream"], 10);
  expect(
    Object.fromEntries(
      stdout
        .trim()
        .split("\n")
        .map((line) => line.split(/=(.*)/s).slice(0, 2)),
    ),
  ).toEqual({
    PATH: process.env.PATH,
    AWS_ACCESS_KEY_ID: KEY,
    AWS_SECRET_ACCESS_KEY: TOKEN,
    LITESTREAM_ACCESS_KEY_ID: KEY,
    LITESTREAM_SECRET_ACCESS_KEY: TOKEN,
    AWS_REGION: "eu-central-1",
    SSL_CERT_FILE: "/etc/bundle.pem",
  });
});

test("AWS_CA_BUNDLE in the app's environment does not stop litestream", async () => {
  const env = {
    PATH: process.env.PATH,
    AWS_CA_BUNDLE: process.env.AWS_CA_BUNDLE || "/etc/ssl/certs/ca-certificates.crt",
  };
  const { config } = setUp(replicaUrl(s3.port, "secrets/e.db"), {}, { env });
  await writeRows(config.dbpath, 5);
  expect(await config.timedReplicate(30)).toBe(true);
});
