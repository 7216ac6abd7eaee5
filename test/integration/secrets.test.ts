import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { fakeLitestream } from "../support/fake-litestream.ts";
import { type Fault, type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { freePort, KEY, replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { secretIn } from "../support/secrets.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { writeRows } from "../support/sqlite.ts";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

function expectNoSecret(where: string, text: string) {
  expect(secretIn(text), `a secret in ${where}`).toBeUndefined();
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

describe("an app of its own at trace level, with its secrets from the constructor", () => {
  const REPORTS = ["--report-uncaught-exception"];
  const CRASHES = ["--stack-trace-limit=100", "--trace-uncaught"];
  /** A litestream that says its secrets in every form as its last words. */
  const tellTale = () =>
    fakeLitestream(
      `for s in "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"; do
        echo "Error: AccessDenied: $s $(printf %s "$s" | base64 -w0) $(printf %s "$s" | od -An -v -tx1 | tr -d ' \\n')" >&2
      done; exit 1`,
      "restore",
    );

  interface Kind {
    shows: string;
    method?: string;
    args?: readonly unknown[];
    settings?: Record<string, string>;
    litestream?: () => string;
    database?: boolean;
    fault?: Fault;
    /** The requests that have the fault. Default: all. */
    at?: RegExp;
    /** It ends without an error that nobody catches. */
    survives?: boolean;
    /** There is a backup. */
    backup?: boolean;
    /** What of litestream's arguments must have been seen, for the look at them to count. */
    runs?: "restore" | "replicate" | "(?:ltx|wal)";
  }
  const replicates = {
    method: "replicateOnce",
    // Each run has a database of its own.
    args: [{ timeoutSeconds: 40, takeOver: true }],
    database: true,
    survives: true,
  } as const;
  const refused = { fault: { status: 403 } } as const;
  /** Long enough for a slow machine to get to the request that is refused, or is never answered. */
  const SHORT = [{ timeoutSeconds: 6 }];
  /** litestream 0.5 goes on trying after a refusal, and must have been refused by then. */
  const LONG = [{ timeoutSeconds: 15, takeOver: true }];
  const inVain = { shows: "reason: 'timeout'", fault: "stall", args: SHORT } as const;
  const uploads = { at: /^PUT/, runs: "replicate" } as const;
  const downloads = { at: /^GET .*\.(?:ltx|lz4)/, backup: true, runs: "restore" } as const;
  const lists = { runs: "(?:ltx|wal)" } as const;
  const noBucket = { s3: "s3://nowhere.localhost:PORT/x.db" };

  test.each<[string, Kind]>([
    ["replicates", { ...replicates, shows: "ok: true", runs: "replicate" }],
    ["restores", { shows: "/db.sqlite", backup: true, survives: true, runs: "restore" }],
    ["may not list to restore", { ...refused, shows: "reason: 'credentials'", runs: "restore" }],
    ["may not restore", { ...refused, ...downloads, shows: "reason: 'credentials'" }],
    ["may not list to replicate", { ...refused, ...replicates, ...lists, shows: "reason: 'credentials'" }],
    [
      "may not replicate",
      { ...refused, ...replicates, ...uploads, args: LONG, shows: "reason: 'credentials'" },
    ],
    [
      "hears its secrets from litestream",
      { shows: "AccessDenied: [redacted] [redacted]", litestream: tellTale },
    ],
    ["restores from no bucket", { shows: "reason: 'bucket'", settings: noBucket, runs: "restore" }],
    ["replicates to no bucket", { ...replicates, ...lists, shows: "reason: 'bucket'", settings: noBucket }],
    ["restores nothing", { shows: "reason: 'no-backup'", runs: "restore" }],
    ["lists in vain to restore", { ...inVain, ...lists }],
    ["restores in vain", { ...inVain, ...downloads }],
    ["lists in vain to replicate", { ...replicates, ...inVain, ...lists }],
    ["replicates in vain", { ...replicates, ...inVain, ...uploads }],
    ["would overwrite", { shows: "DATABASE_EXISTS", database: true }],
    ["has no database", { ...replicates, shows: "DATABASE_NOT_FOUND", database: false, survives: false }],
    ["has no litestream", { shows: "LITESTREAM_NOT_FOUND", litestream: () => "/no/such/litestream" }],
    ["has no real litestream", { shows: "LITESTREAM_UNSUPPORTED", litestream: () => "/usr/bin/env" }],
    ["can't use its options", { shows: "OPTION_INVALID", method: "timedReplicate", args: [TOKEN] }],
    [
      "runs no command",
      { shows: "COMMAND_NOT_STARTED", method: "getResultOnTimeout", args: [["/no/such/command"], 5] },
    ],
    [
      "has a newline in its secrets",
      { shows: "CONFIG_INVALID", settings: { key: `${KEY}\n`, token: `${TOKEN}\n` } },
    ],
    [
      "has its secrets in the URL",
      { shows: "CONFIG_INVALID", settings: { s3: `s3://${KEY}:${TOKEN}@backups/x.db` } },
    ],
    [
      "has its secrets under other names",
      { shows: "CONFIG_INVALID", settings: { key: "", secret: TOKEN, s3: KEY } },
    ],
  ])("that %s", { timeout: 240_000 }, async (_, kind) => {
    const proxy = await startFaultProxy(s3.port);
    onTestFinished(() => proxy.stop());
    const s3Url = (kind.settings?.s3 ?? `s3://backups.localhost:PORT/secrets/${randomUUID()}.db`).replace(
      "PORT",
      String(proxy.port),
    );
    const run = async (options: string[]) => {
      const [folder, place] = [tempFolder(), tempFolder()];
      if (kind.database) await writeRows(join(folder, "db.sqlite"), 5);
      const call = {
        settings: { key: KEY, token: TOKEN, folder, ...kind.settings, s3: s3Url },
        litestream: (kind.litestream ?? (() => LITESTREAM))(),
        method: kind.method ?? "restore",
        args: kind.args,
      };
      return await watchApp(call, options, { place, folder, proxy });
    };
    if (kind.backup) {
      const { config } = setUp(s3Url);
      await writeRows(config.dbpath, 5);
      expect(await config.timedReplicate(30)).toBe(true);
    }
    proxy.fault = ({ method, url }) => ((kind.at ?? /^/).test(`${method} ${url}`) ? kind.fault : undefined);
    for (const options of [REPORTS, CRASHES]) {
      const seen = await run(options);
      expect(seen.output).toContain(kind.shows);
      expect(seen.output).not.toContain("Cannot find module");
      if (kind.runs) expect(seen.argv).toMatch(new RegExp(`litestream\\S* ${kind.runs} .*-config`));
      expect(seen.exitCode).toBe(kind.survives ? 0 : 1);
      const reports = [...seen.files.keys()].filter((name) => /\/report\..*\.json$/.test(name));
      expect(reports).toHaveLength(kind.survives || options === CRASHES ? 0 : 1);
      expectNoSecret("the output", seen.output);
      expectNoSecret("argv", seen.argv);
      for (const [name, content] of seen.files) expectNoSecret(name, `${name} ${content}`);
    }
  });

  /** Runs the app, and looks at its processes and files at each request to the store, and in between. */
  async function watchApp(
    call: object,
    options: string[],
    { place, folder, proxy }: { place: string; folder: string; proxy: FaultProxy },
  ) {
    const app = spawn(
      process.execPath,
      [...options, new URL("../support/crash.mjs", import.meta.url).pathname],
      {
        cwd: place,
        env: { PATH: process.env.PATH, TMPDIR: place, HOME: place, LOG_LEVEL: "trace" },
      },
    );
    onTestFinished(() => void app.kill("SIGKILL"));
    let output = "";
    for (const stream of [app.stdout, app.stderr]) stream.on("data", (chunk) => (output += chunk));
    app.stdin.end(JSON.stringify(call));
    const argv = new Set<string>();
    const files = new Map<string, string>();
    const look = () => {
      for (const line of argvOfFamily(app.pid)) argv.add(line);
      for (const file of [place, folder].flatMap(filesIn)) files.set(file, contentOf(file));
    };
    const { fault } = proxy;
    proxy.fault = (request) => {
      look();
      return fault(request);
    };
    const looking = setInterval(look, 20);
    await once(app, "close");
    clearInterval(looking);
    proxy.fault = fault;
    look();
    return { output, exitCode: app.exitCode, argv: [...argv].join("\n"), files };
  }
});

/** The arguments of a process and of everything that it has started. */
function argvOfFamily(root: number | undefined): string[] {
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      const stat = contentOf(`/proc/${pid}/stat`);
      const ppid = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      return { pid: Number(pid), ppid };
    });
  const family = new Set([root]);
  for (let size = 0; size !== family.size; ) {
    size = family.size;
    for (const { pid, ppid } of processes) if (family.has(ppid)) family.add(pid);
  }
  return [...family].map((pid) => contentOf(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim());
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
  } catch {
    return filesIn(folder); // a folder in it has gone meanwhile
  }
}

/** Empty where it has gone meanwhile. */
function contentOf(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}

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
    LITESTREAM_S3_LIFELINE: expect.stringMatching(/^[0-9a-f-]{36}$/),
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
