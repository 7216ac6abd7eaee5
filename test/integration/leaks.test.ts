import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { fakeLitestream } from "../support/fake-litestream.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { processesWith } from "../support/processes.ts";
import { KEY, replicaUrl, type S3, startS3, TOKEN } from "../support/s3.ts";
import { setUp, tempFolder } from "../support/setup.ts";
import { writeRows } from "../support/sqlite.ts";

// What a process holds is read from /proc.
const NO_PROC = existsSync("/proc/self/fd") ? undefined : "this machine has no /proc";

let s3: S3;
beforeAll(async () => {
  s3 = await startS3();
});
afterAll(() => s3.stop());

/** How long 200 runs, or 1 GB, take is the machine's affair. */
const MINUTES = { timeout: 600_000 };

/** The built library in a process of its own, and the JSON lines that it prints. */
function start(script: string, argument: unknown, options: string[] = []) {
  const file = new URL(`../support/${script}`, import.meta.url).pathname;
  const child = spawn(process.execPath, [...options, file, JSON.stringify(argument)], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { PATH: process.env.PATH },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout }).on("line", () => {});
  return { child, lines, ended: once(child, "close") };
}

describe.skipIf(NO_PROC)(`what a process holds${NO_PROC ? ` (skipped: ${NO_PROC})` : ""}`, () => {
  /** Longer than the test may take: a timer that is left behind still shows at the end. */
  const SECONDS = 600;
  /** A litestream that the system can't start. */
  function unstartable(): string {
    const file = join(tempFolder(), "litestream");
    writeFileSync(file, "#!/no/such/interpreter\n");
    chmodSync(file, 0o755);
    return file;
  }

  /** Each kind of run, and what must come of it. */
  function kindsOfRuns(port: number) {
    const url = (path: string, bucket?: string) => replicaUrl(port, `leaks/${path}`, bucket);
    const good = url("good/NUMBER.db");
    const timed = (timeoutSeconds: number, more = {}) => [{ timeoutSeconds, ...more }];
    return [
      {
        name: "replicate",
        outcome: true,
        method: "timedReplicate",
        args: [SECONDS],
        s3: good,
        database: true,
      },
      {
        name: "replicate, a caller's signal",
        outcome: true,
        method: "replicateOnce",
        args: timed(SECONDS, { keepLocal: true }),
        s3: good,
        database: true,
        signal: "long-lived",
      },
      {
        name: "restore",
        outcome: "path",
        method: "restore",
        args: timed(SECONDS),
        s3: url("sample.db"),
        signal: "long-lived",
      },
      { name: "first boot", outcome: "path", method: "restore", args: [{ ifReplicaExists: true }], s3: good },
      {
        name: "no backup",
        outcome: "no-backup",
        method: "restore",
        s3: good,
        args: [{}],
        signal: "long-lived",
      },
      { name: "in the way", outcome: "DATABASE_EXISTS", method: "restore", s3: good, database: true },
      { name: "restore, refused", outcome: "credentials", method: "restore", s3: url("refused.db") },
      {
        name: "replicate, refused",
        outcome: "credentials",
        method: "replicateOnce",
        args: timed(SECONDS),
        s3: url("refused.db"),
        database: true,
        signal: "long-lived",
      },
      { name: "restore, no bucket", outcome: "bucket", method: "restore", s3: url("x.db", "nowhere") },
      {
        name: "replicate, no bucket",
        outcome: "bucket",
        method: "replicateOnce",
        args: timed(SECONDS),
        s3: url("x.db", "nowhere"),
        database: true,
      },
      {
        name: "restore, deadline",
        outcome: "timeout",
        method: "restore",
        args: timed(0.4),
        s3: url("stalled.db"),
        signal: "long-lived",
      },
      {
        name: "replicate, deadline",
        outcome: "timeout",
        method: "replicateOnce",
        args: timed(0.4),
        s3: url("stalled.db"),
        database: true,
        signal: "long-lived",
      },
      {
        name: "restore, abort",
        outcome: "aborted",
        method: "restore",
        args: timed(SECONDS),
        s3: url("stalled.db"),
        signal: "aborts",
      },
      {
        name: "replicate, abort",
        outcome: "aborted",
        method: "replicateOnce",
        args: timed(SECONDS),
        s3: url("stalled.db"),
        database: true,
        signal: "aborts",
      },
      {
        name: "replicate, aborted before",
        outcome: "aborted",
        method: "replicateOnce",
        args: timed(SECONDS),
        s3: good,
        database: true,
        signal: "aborted",
      },
      {
        name: "no database",
        outcome: "DATABASE_NOT_FOUND",
        method: "replicateOnce",
        args: timed(SECONDS),
        s3: good,
        signal: "long-lived",
      },
      {
        name: "no litestream",
        outcome: "LITESTREAM_UNSUPPORTED",
        method: "timedReplicate",
        args: [SECONDS],
        s3: good,
        database: true,
        litestream: "/bin/echo",
      },
      {
        name: "a litestream that does not start",
        outcome: "LITESTREAM_NOT_FOUND",
        method: "restore",
        s3: good,
        litestream: unstartable(),
      },
      { name: "delete", outcome: undefined, method: "delete", s3: good, database: true },
      {
        name: "a command",
        outcome: ["out\n", "err\n"],
        method: "getResultOnTimeout",
        args: [["/bin/sh", "-c", "echo out; echo err >&2"], SECONDS],
        s3: good,
      },
      {
        name: "a command, deadline",
        outcome: ["out\n", ""],
        method: "getResultOnTimeout",
        args: [["/bin/sh", "-c", "echo out; sleep 60"], 0.5],
        s3: good,
      },
      {
        name: "no command",
        outcome: "COMMAND_NOT_STARTED",
        method: "getResultOnTimeout",
        args: [["/no/such/command"], SECONDS],
        s3: good,
      },
    ];
  }

  test(
    "open files, timers, listeners and child processes are the same before and after 200 runs",
    MINUTES,
    async () => {
      const proxy = await startFaultProxy(s3.port);
      onTestFinished(() => proxy.stop());
      proxy.fault = ({ url = "" }) =>
        url.includes("refused") ? { status: 403 } : url.includes("stalled") ? "stall" : undefined;
      const sample = setUp(replicaUrl(s3.port, "leaks/sample.db")).config;
      await writeRows(sample.dbpath, 20);
      expect(await sample.replicateOnce({ timeoutSeconds: SECONDS, keepLocal: true })).toMatchObject({
        ok: true,
      });

      const kinds = kindsOfRuns(proxy.port);
      const runs = Math.ceil(200 / kinds.length) * kinds.length;
      const folder = tempFolder();
      const secrets = { key: KEY, token: TOKEN };
      const { child, lines, ended } = start(
        "leaks.mjs",
        { kinds, runs, atOnce: 8, secrets, sample: sample.folder, folder, litestream: LITESTREAM },
        ["--expose-gc"],
      );
      const said: { before?: unknown; outcomes?: unknown; after?: unknown } = {};
      const done = new Promise<void>((resolve) => {
        lines.on("line", (line) => {
          Object.assign(said, JSON.parse(line));
          if (said.after !== undefined) resolve();
        });
      });
      await Promise.race([done, ended]);
      expect(said.outcomes).toEqual(
        Object.fromEntries(
          kinds.map(({ name, outcome }) => [
            name,
            { times: runs / kinds.length, what: [JSON.stringify(outcome) ?? "nothing"] },
          ]),
        ),
      );
      // Some ends come a moment later: the shell that watched over a child, a timer, a file that is closed.
      await expect.poll(() => said.after, { timeout: 30_000 }).toEqual(said.before);
      expect(said.before).toMatchObject({ abortListeners: 0, children: [] });
      child.stdin.end();
      await ended;
      expect(processesWith(folder)).toEqual([]);
    },
  );
});

describe.skipIf(NO_PROC)(`how much memory a process takes${NO_PROC ? ` (skipped: ${NO_PROC})` : ""}`, () => {
  const MOST_MB = 64;
  interface Call {
    settings: { key: string; token: string; s3: string; folder: string };
    litestream?: string;
    method: string;
    args: unknown[];
  }

  /** Makes all the calls in one process; says what came of the last, and how much more memory than `usual` took the others. */
  async function growthOf({ usual, more }: { usual: Call[]; more: Call[] }) {
    const { lines, ended } = start("peak.mjs", [...usual, ...more], ["--expose-gc"]);
    const ends: { outcome: unknown; peakMb: number }[] = [];
    lines.on("line", (line) => ends.push(JSON.parse(line)));
    await ended;
    expect(ends).toHaveLength(usual.length + more.length);
    const before = ends[usual.length - 1]?.peakMb ?? Number.NaN;
    expect(before).toBeGreaterThan(10);
    const mb = (ends.at(-1)?.peakMb ?? Number.NaN) - before;
    return { outcomes: ends.map(({ outcome }) => outcome), outcome: ends.at(-1)?.outcome, mb };
  }

  const settingsFor = (path: string) => {
    const { key, token, s3: url, folder } = setUp(replicaUrl(s3.port, path)).config;
    return { key, token, s3: url, folder };
  };

  const LINE = 'time=2024-01-01T00:00:00Z level=DEBUG msg="something that is done very often"';
  /** Half of the bytes as lines, half as one endless line, each on the stream that the redirection says. */
  const printing = (mb: number, { lines, endless }: { lines: ">&1" | ">&2"; endless: ">&1" | ">&2" }) => {
    const half = mb * 512 * 1024;
    return `{ yes '${LINE}' | head -c ${half} ${lines}; } & head -c ${half} /dev/zero | tr '\\0' x ${endless}; wait; echo ${lines}; echo ${endless}`;
  };
  const GB = 1024;
  const LITTLE = 8;
  const OUT = { lines: ">&1", endless: ">&2" } as const;
  const ERR = { lines: ">&2", endless: ">&1" } as const;
  const REFUSAL = "echo 'Error: AccessDenied: no' >&2; exit 1";

  test.each([
    ["restore", "restore", [{}], OUT],
    ["replicateOnce", "replicate", [{ timeoutSeconds: 600 }], ERR],
  ] as const)(
    "%s: a litestream that prints 1 GB, as lines and as one line without an end",
    MINUTES,
    async (method, command, args, where) => {
      const settings = settingsFor("leaks/memory.db");
      if (command === "replicate") await writeRows(join(settings.folder, "db.sqlite"), 5);
      const call = (mb: number): Call => ({
        settings,
        litestream: fakeLitestream(`${printing(mb, where)}; ${REFUSAL}`, command),
        method,
        args: [...args],
      });
      const { outcome, mb } = await growthOf({ usual: [call(LITTLE)], more: [call(GB)] });
      // The last words count, however much came before.
      expect(outcome).toMatchObject({
        reason: "credentials",
        message: expect.stringContaining("AccessDenied: no"),
      });
      expect(mb).toBeLessThan(MOST_MB);
    },
  );

  test(
    "getResultOnTimeout: a command that prints 1 GB, as lines and as one line without an end",
    MINUTES,
    async () => {
      const settings = settingsFor("leaks/memory.db");
      const call = (mb: number): Call => ({
        settings,
        method: "getResultOnTimeout",
        args: [["/bin/sh", "-c", `${printing(mb, OUT)}; echo out; echo err >&2`], 600],
      });
      const { outcome, mb } = await growthOf({ usual: [call(LITTLE)], more: [call(GB)] });
      expect(outcome).toEqual([expect.stringMatching(/\nout\n$/), expect.stringMatching(/xx\nerr\n$/)]);
      expect(mb).toBeLessThan(MOST_MB);
    },
  );

  test("replicate and restore a database of 100 MB", MINUTES, async () => {
    const small = settingsFor("leaks/small.db");
    const large = settingsFor("leaks/large.db");
    const file = ({ folder }: { folder: string }) => join(folder, "db.sqlite");
    await writeRows(file(small), 1);
    await writeRows(file(large), 100, { bytes: 1_000_000 });
    const calls = (settings: Call["settings"]): Call[] => [
      { settings, litestream: LITESTREAM, method: "timedReplicate", args: [600] },
      { settings, litestream: LITESTREAM, method: "restore", args: [] },
    ];
    const { outcomes, mb } = await growthOf({ usual: calls(small), more: calls(large) });
    expect(outcomes).toEqual([true, file(small), true, file(large)]);
    expect(statSync(file(large)).size).toBeGreaterThan(100_000_000);
    expect(mb).toBeLessThan(MOST_MB);
  });
});
