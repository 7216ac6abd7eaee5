import { execFile, spawnSync } from "node:child_process";
import { Console } from "node:console";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { PassThrough } from "node:stream";
import { pathToFileURL } from "node:url";
import { format, inspect, promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  ConfigError,
  type ConfigOptions,
  ConfigS3,
  InvalidOptionError,
  LitestreamError,
  type Logger,
  type SettingsInput,
} from "../../src/index.ts";
import { processesWith } from "../support/processes.ts";
import { memoryLogger, tempFolder } from "../support/setup.ts";

const KEY = "AKIDsHoWnNoWhErE";
const TOKEN = "tOkEn/sHoWn+NoWhErE=";
const SHOWN = "ConfigS3(s3='s3://x/x.db', db='db.sqlite')";

function create(settings: Partial<SettingsInput> = {}, options: ConfigOptions = {}) {
  const log = memoryLogger();
  const config = new ConfigS3(
    { key: KEY, token: TOKEN, s3: "s3://x/x.db", folder: settings.folder ?? tempFolder(), ...settings },
    { envFile: false, env: { PATH: process.env.PATH }, logger: log.logger, ...options },
  );
  return { config, log };
}

describe("dbpath", () => {
  test("is the database in its folder, which it makes, with those above it", () => {
    const folder = join(tempFolder(), "var", "lib", "app");
    expect(create({ folder, db: "app.db" }).config.dbpath).toBe(join(folder, "app.db"));
    expect(statSync(folder).isDirectory()).toBe(true);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("the constructor makes no folder", () => {
    const folder = join(tempFolder(), "data");
    create({ folder });
    expect(existsSync(folder)).toBe(false);
  });

  test("leaves an existing folder and what is in it", () => {
    const folder = tempFolder();
    writeFileSync(join(folder, "other.txt"), "x");
    expect(create({ folder }).config.dbpath).toBe(join(folder, "db.sqlite"));
    expect(readdirSync(folder)).toEqual(["other.txt"]);
  });

  test.each([
    ["in the folder's place", "data"],
    ["above the folder", "data/below"],
  ])("is a ConfigError for DB_FOLDER where a file stands %s", (_, path) => {
    const folder = tempFolder();
    writeFileSync(join(folder, "data"), "a file");
    const { config } = create({ folder: join(folder, path) });
    const error = thrownBy(() => config.dbpath);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({
      code: "CONFIG_INVALID",
      issues: [{ name: "DB_FOLDER", problem: expect.stringMatching(/^the folder can't be made: E/) }],
      cause: { syscall: "mkdir" },
    });
  });
});

describe("the two argument lists", () => {
  test("are the original's, word for word", () => {
    const folder = tempFolder();
    const { config } = create({ folder });
    expect(config.replicateArgs).toEqual(["litestream", "replicate", `${folder}/db.sqlite`, "s3://x/x.db"]);
    expect(config.restoreArgs).toEqual([
      ...["litestream", "restore", "-v", "-o"],
      ...[`${folder}/db.sqlite`, "s3://x/x.db"],
    ]);
  });

  test("are the caller's own each time", () => {
    const { config } = create();
    config.replicateArgs.push("-exec");
    config.restoreArgs.length = 0;
    expect([config.replicateArgs.length, config.restoreArgs.length]).toEqual([4, 6]);
  });
});

describe("immutability", () => {
  test.each([
    ...["key", "token", "s3", "folder", "db"],
    ...["dbpath", "replicateArgs", "restoreArgs", "restore", "other"],
  ])("%s can't be assigned", (name) => {
    const { config } = create();
    expect(() => Object.assign(config, { [name]: "changed" })).toThrow(TypeError);
  });

  test("nothing can be deleted or defined", () => {
    const { config } = create();
    expect(Object.isFrozen(config)).toBe(true);
    expect(Reflect.deleteProperty(config, "s3")).toBe(false);
    expect(Reflect.defineProperty(config, "key", { value: "changed" })).toBe(false);
  });

  test("a later change of the settings given changes nothing", () => {
    const settings = { key: "k", token: "t", s3: "s3://x/x.db", folder: "/data", db: "app.db" };
    const config = new ConfigS3(settings, { env: {}, envFile: false });
    const before = { ...settings };
    Object.assign(settings, { key: "k2", token: "t2", s3: "s3://y/y.db", folder: "/other", db: "b.db" });
    const { key, token, s3, folder, db } = config;
    expect({ key, token, s3, folder, db }).toEqual(before);
  });
});

describe("what is shown", () => {
  const folder = "/srv/fOlDeR-sHoWn-NoWhErE";
  const { config } = createShown();
  function createShown() {
    const { logger } = memoryLogger();
    const settings = { key: KEY, token: TOKEN, s3: "s3://x/x.db", folder };
    return { config: new ConfigS3(settings, { env: {}, envFile: false, logger }) };
  }
  const SECRETS = [KEY, TOKEN, folder];
  const hides = (text: string) => SECRETS.every((secret) => !text.includes(secret));

  test("there is something to hide", () => {
    expect([config.key, config.token, config.folder]).toEqual(SECRETS);
  });

  test.each<[string, () => string]>([
    ["String", () => String(config)],
    ["a template", () => `${config}`],
    ["toString", () => config.toString()],
    ["util.inspect", () => inspect(config)],
    ["util.inspect with all it has", () => inspect(config, { showHidden: true, depth: 20, getters: true })],
    ["%s", () => format("%s", config)],
    ["%o", () => format("%o", config)],
    ["%O", () => format("%O", config)],
  ])("%s: s3 and db, word for word", (_, show) => {
    expect(show()).toContain(SHOWN);
    expect(hides(show())).toBe(true);
  });

  test("console.log", () => {
    const stream = new PassThrough({ encoding: "utf8" });
    new Console(stream).log(config, { config }, [config]);
    expect(stream.read()).toBe(`${SHOWN} { config: ${SHOWN} } [ ${SHOWN} ]\n`);
  });

  test("nested at any depth", () => {
    expect(inspect({ a: { b: { c: config } } }, { depth: 0 })).not.toContain(KEY);
    expect(inspect({ a: { b: { c: config } } }, { depth: 20 })).toContain(SHOWN);
    expect(hides(inspect(new Error("x", { cause: config }), { showHidden: true, depth: 20 }))).toBe(true);
  });

  test("util.inspect without the class's own words", () => {
    expect(hides(inspect(config, { customInspect: false, showHidden: true, depth: 20 }))).toBe(true);
  });

  test.each<[string, () => unknown]>([
    ["JSON.stringify", () => JSON.parse(JSON.stringify(config))],
    ["JSON.stringify, nested", () => JSON.parse(JSON.stringify([{ config }]))[0].config],
    ["spreading", () => ({ ...config })],
    ["Object.assign", () => Object.assign({}, config)],
    ["structuredClone", () => structuredClone(config)],
    ["Object.fromEntries", () => Object.fromEntries(Object.entries(config))],
  ])("%s: s3 and db alone", (_, copy) => {
    expect(copy()).toEqual({ s3: "s3://x/x.db", db: "db.sqlite" });
  });

  test("no own property has more, hidden ones and symbols included", () => {
    expect(Reflect.ownKeys(config)).toEqual(["s3", "db"]);
  });

  test("a pino log: s3 and db alone", () => {
    const { logger, lines } = memoryLogger();
    logger.info({ config }, "nested");
    logger.info(config, "as the object");
    logger.info("%o %s", config, config);
    const shown = { s3: "s3://x/x.db", db: "db.sqlite" };
    expect(lines[0]).toMatchObject({ msg: "nested", config: shown });
    expect(lines[1]).toMatchObject({ msg: "as the object", ...shown });
    expect(hides(JSON.stringify(lines))).toBe(true);
  });
});

describe("a timeout that is no positive finite number", () => {
  const BAD = [0, -0, -1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, "3", null, 3n, {}];
  const text = (value: unknown) => (Object.is(value, -0) ? "-0" : inspect(value));
  type Call = (config: ConfigS3, timeout: never) => Promise<unknown>;
  const CALLS: [string, Call, unknown[]][] = [
    ["timedReplicate", (config, timeout) => config.timedReplicate(timeout), [...BAD, undefined]],
    [
      "replicateOnce",
      (config, timeoutSeconds) => config.replicateOnce({ timeoutSeconds }),
      [...BAD, undefined],
    ],
    [
      "getResultOnTimeout",
      (config, timeout) => config.getResultOnTimeout(["/bin/sh", "-c", "exit"], timeout),
      [...BAD, undefined],
    ],
    ["restore", (config, timeoutSeconds) => config.restore({ timeoutSeconds }), BAD],
  ];

  test.each(
    CALLS.flatMap(([name, call, values]) => values.map((value) => [name, text(value), call, value] as const)),
  )("%s(%s) rejects, and starts nothing", async (_, __, call, value) => {
    const { config, log } = create();
    const error = await rejectionOf(call(config, value as never));
    expect(error).toBeInstanceOf(InvalidOptionError);
    expect(error).toMatchObject({
      name: "InvalidOptionError",
      code: "OPTION_INVALID",
      message: expect.stringMatching(/^The timeout must be a positive, finite number of seconds, not /),
    });
    expect(log.lines).toEqual([]);
  });

  test("replicateOnce without options rejects", async () => {
    const error = await rejectionOf(create().config.replicateOnce(undefined as never));
    expect(error).toBeInstanceOf(InvalidOptionError);
  });

  test("restore needs none", async () => {
    const { config } = create();
    writeFileSync(config.dbpath, "");
    const options = { ifDbNotExists: true, timeoutSeconds: undefined as unknown as number };
    expect(await config.restore(options)).toBe(config.dbpath);
    expect(await config.restore({ ifDbNotExists: true })).toBe(config.dbpath);
  });
});

describe("getResultOnTimeout", () => {
  const sh = (script: string, ...args: string[]) => ["/bin/sh", "-c", script, ...args];

  test("gives what the command wrote to stdout and stderr, as written", async () => {
    const { config } = create();
    const command = sh("printf 'one\\ntwo\\r\\n'; printf 'oops' >&2; printf 'ünï\\n'");
    expect(await config.getResultOnTimeout(command, 30)).toEqual(["one\ntwo\r\nünï\n", "oops"]);
  });

  test("gives it also where the command fails", async () => {
    const { config } = create();
    expect(await config.getResultOnTimeout(sh("echo no >&2; exit 3"), 30)).toEqual(["", "no\n"]);
    expect(await config.getResultOnTimeout(sh("echo bye; kill -9 $$"), 30)).toEqual(["bye\n", ""]);
  });

  test("hands the arguments on as they are", async () => {
    const { config } = create();
    const odd = ["a b", "$HOME", "'\"", "", "*", "line\nbreak"];
    const script = "console.log(JSON.stringify(process.argv.slice(1)))";
    const [stdout] = await config.getResultOnTimeout([process.execPath, "-e", script, "--", ...odd], 30);
    expect(JSON.parse(stdout)).toEqual(odd);
  });

  test("finds a name on PATH and gives it the app's environment, without the credentials", async () => {
    const { config } = create({}, { env: { PATH: process.env.PATH, APP: "mine" } });
    const [stdout] = await config.getResultOnTimeout(["env"], 30);
    expect(stdout).toContain("APP=mine\n");
    expect(stdout).not.toContain(TOKEN);
  });

  test("`litestream` is the one in use, with the credentials and nothing of the app's own AWS identity", async () => {
    const env = { PATH: process.env.PATH, AWS_PROFILE: "p", AWS_SESSION_TOKEN: "s", LOG_LEVEL: "debug" };
    const { config } = create({}, { env, litestream: "/usr/bin/env" });
    const [stdout] = await config.getResultOnTimeout(["litestream"], 30);
    expect(stdout.trim().split("\n").sort()).toEqual([
      `AWS_ACCESS_KEY_ID=${KEY}`,
      `AWS_SECRET_ACCESS_KEY=${TOKEN}`,
      `LITESTREAM_ACCESS_KEY_ID=${KEY}`,
      expect.stringMatching(/^LITESTREAM_S3_LIFELINE=[0-9a-f-]{36}$/),
      `LITESTREAM_SECRET_ACCESS_KEY=${TOKEN}`,
      `PATH=${process.env.PATH}`,
    ]);
  });

  test("does not wait for the timeout where the command has ended", async () => {
    const { config } = create();
    await config.getResultOnTimeout(sh("exit"), 3_000_000); // longer than a timer can be
  });

  test("kills it at its timeout, with all it has started, and gives what it wrote until then", async () => {
    const mark = tempFolder();
    const { config } = create();
    const script =
      "/bin/sh -c 'trap \"\" INT TERM; sleep 300; :' $0 & trap '' INT TERM; echo began; sleep 300; :";
    expect(await config.getResultOnTimeout(sh(script, mark), 1)).toEqual(["began\n", ""]);
    await expect.poll(() => processesWith(mark)).toEqual([]);
  });

  test("is not held up by what outlives the command and keeps its output open", async () => {
    const { config } = create();
    const [pid] = await config.getResultOnTimeout(sh("sleep 300 & echo $!"), 120);
    onTestFinished(() => void spawnSync("kill", ["-9", pid.trim()]));
    expect(pid).toMatch(/^\d+\n$/);
  });

  test("keeps the last 1,048,576 characters of each stream", async () => {
    const { config } = create();
    const script = `
      const write = (name, end) => process[name].write("x".repeat(3 * 1024 * 1024) + end);
      write("stdout", "end of stdout");
      write("stderr", "end of stderr");`;
    const ends = await config.getResultOnTimeout([process.execPath, "-e", script], 60);
    expect(ends.map((text) => text.length)).toEqual([1_048_576, 1_048_576]);
    expect(ends.map((text) => text.slice(-14))).toEqual(["xend of stdout", "xend of stderr"]);
  });

  test("logs each line, without the secrets", async () => {
    const { config, log } = create();
    await config.getResultOnTimeout(sh('echo "key $0"; echo "token $1"', KEY, TOKEN), 30);
    const lines = log.at(20).map(({ line }) => line);
    expect(lines).toEqual(["key [redacted]", "token [redacted]"]);
  });

  test.each([[[]], [[""]], [["", "x"]], [["a\0b"]], [["ls", "\0"]], ["ls -l" as never]])(
    "refuses the command %j",
    async (command) => {
      const error = await rejectionOf(create().config.getResultOnTimeout(command, 5));
      expect(error).toBeInstanceOf(InvalidOptionError);
      expect(error).toMatchObject({
        code: "OPTION_INVALID",
        message: expect.stringContaining("a list of words"),
      });
    },
  );

  test("a logger that throws changes nothing", async () => {
    const fail = () => {
      throw new Error("a broken logger");
    };
    const logger = { debug: fail, info: fail, warn: fail, error: fail } as unknown as Logger;
    const { config } = create({}, { logger });
    expect(await config.getResultOnTimeout(["/bin/sh", "-c", "echo a line"], 30)).toEqual(["a line\n", ""]);
    await config.delete();
  });

  test("says so where the process has no file descriptor left, and nothing crashes", async () => {
    const script = `
      import { openSync, closeSync } from "node:fs";
      import { ConfigS3 } from ${JSON.stringify(pathToFileURL(resolve("dist/index.js")).href)};
      const settings = { key: "k-e-y", token: "t-o-k-e-n", s3: "s3://x/x.db", folder: ${JSON.stringify(tempFolder())} };
      const config = new ConfigS3(settings, { envFile: false });
      const fds = [];
      try { for (;;) fds.push(openSync("/dev/null")); } catch {}
      const codes = [];
      for (let free = 0; free <= 8; free += 1) {
        await config.getResultOnTimeout(["/bin/true"], 5).catch(({ code }) => codes.push(code));
        closeSync(fds.pop());
      }
      for (const fd of fds) closeSync(fd);
      await config.getResultOnTimeout(["/bin/true"], 30);
      process.stdout.write(JSON.stringify(codes));`;
    const args = ["-c", 'ulimit -n 200; exec "$0" --input-type=module --eval "$1"', process.execPath, script];
    const { stdout } = await promisify(execFile)("/bin/sh", args);
    expect(JSON.parse(stdout)).toEqual(Array.from({ length: 9 }, () => "TOO_MANY_OPEN_FILES"));
  });

  test.each([
    ["does not exist", "/no/such/command"],
    ["is not on PATH", "no-such-command"],
    ["is a folder", "/"],
  ])("a command that %s could not be started", async (_, name) => {
    const error = await rejectionOf(create().config.getResultOnTimeout([name, "--secret", TOKEN], 5));
    expect(error).toBeInstanceOf(LitestreamError);
    expect(error).toMatchObject({
      code: "COMMAND_NOT_STARTED",
      message: expect.stringContaining(`${name} could not be started: `),
    });
    expect(inspect(error, { showHidden: true, depth: 20 })).not.toContain(TOKEN);
  });
});

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error("it threw nothing");
}

async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => {
      throw new Error("it resolved");
    },
    (error: unknown) => error,
  );
}
