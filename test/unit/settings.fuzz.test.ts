import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve, sep } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ConfigError, type ConfigOptions, ConfigS3, type SettingsInput } from "../../src/index.ts";
import { configurationOf, identify, restoreArgs } from "../../src/litestream/dialect.ts";
import { COMMANDS, REPLICATE_HELP } from "./recorded.ts";

// fast-check prints the seed and the smallest counterexample where one is found.
const RUNS = { numRuns: 2000 };
// So many runs take a busy machine a while.
vi.setConfig({ testTimeout: 300_000 });

const SECRET = "sHoWnSeCrEt";
const NAMES = [
  "LITESTREAM_ACCESS_KEY_ID",
  "LITESTREAM_SECRET_ACCESS_KEY",
  "REPLICA_URL",
  "DB_FOLDER",
  "DB_SQLITE",
  "REPLICA_ENDPOINT",
  "REPLICA_REGION",
  "REPLICA_HISTORY_HOURS",
];
/** All that a litestream could read as a flag. */
const FLAGS = /^-(?:once|force-snapshot|o|if-replica-exists|level|no-expand-env|config)$/;

const before = process.cwd();
let temp: string;
beforeAll(() => {
  temp = realpathSync(mkdtempSync(join(tmpdir(), "litestream-s3-fuzz-")));
  process.chdir(temp);
});
afterAll(() => {
  process.chdir(before);
  rmSync(temp, { recursive: true, force: true });
});

const DIALECTS = (["0.3", "0.5.5", "0.5.17"] as const).map((commands) => {
  const replicateHelp = REPLICATE_HELP[commands === "0.5.5" ? "0.5.5" : "0.5.10"];
  const known = identify({ version: "(development build)", commands: COMMANDS[commands], replicateHelp });
  if (known === undefined) throw new Error(`${commands} is not known`);
  return known.dialect;
});

/** What somebody might try. */
const hostile = fc.oneof(
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.string({ unit: "grapheme", maxLength: 60 }),
  // Also halves of characters.
  fc.array(fc.nat(0xffff), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  fc.stringMatching(/^[-./\\$(){};&|`'"<>*~!@:?#% a-z0-9]{0,40}$/),
  fc.constantFrom(
    "-config",
    "--",
    "-",
    "-o=/etc/x",
    "..",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "$(touch x)",
    "`touch x`",
    "; touch x",
    "a\nb",
    "a\0b",
    "\r",
    "\u2028",
    "\u202e",
    "\u0085",
    "\ud800",
    "\udc00x",
    "$HOME",
    "~root",
    "%00",
    "%2e%2e%2f",
    "C:\\x",
    "\\\\host\\share",
    "file:///etc/passwd",
    "__proto__",
    "constructor",
    " ",
    "\ufeff",
  ),
  fc.nat(3).map((n) => "x".repeat(10 ** (n + 2))),
);
/** No text at all, or an object that behaves badly. */
const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withSet: true,
    withTypedArray: true,
  }),
  fc.constantFrom<unknown>(
    null,
    undefined,
    "",
    Symbol(SECRET),
    () => SECRET,
    new String(SECRET),
    Number.NaN,
    [SECRET],
    { toString: () => SECRET },
    new URL("s3://bucket/x.db"),
    new Proxy(
      {},
      {
        get: () => {
          throw new Error(SECRET);
        },
      },
    ),
  ),
);
const mostly = (text: fc.Arbitrary<string>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 9, arbitrary: text }, { weight: 1, arbitrary: odd });
/** Else so many hostile settings would leave nothing to accept. */
const rarely = (plain: string, text: fc.Arbitrary<string>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(plain) }, { weight: 1, arbitrary: mostly(text) });

/** Text with hostile parts, most of it near to what is accepted. */
const around = (head: fc.Arbitrary<string>, tail: fc.Arbitrary<string>) =>
  fc.tuple(head, hostile, tail).map((parts) => parts.join(""));
const urlInFile = fc.oneof(
  around(
    fc.constantFrom(
      "s3://bucket/",
      "s3://",
      "s3://bucket",
      "s3://bucket.localhost:9000/",
      "s3:/",
      "S3://b/",
      "-s3://b/",
      `s3://AKID:${SECRET}`,
      "http://b/",
    ),
    fc.constantFrom("", ".db", "@bucket/x.db", "/x.db", "?secret-key=x"),
  ),
  hostile,
);
/** Not in a file, where a # may cut it to what looks like a host, a port and a path. */
const url = fc.oneof(
  { weight: 2, arbitrary: urlInFile },
  { weight: 1, arbitrary: hostile.map((text) => `s3://AKID:12/${SECRET}${text}@bucket/x.db`) },
);
const db = fc.oneof(
  around(
    fc.constantFrom("a", "app", "-a", "../a", "A", ""),
    fc.constantFrom(".db", ".sqlite", "", ".db-wal"),
  ),
  hostile,
);
const folder = fc.oneof(
  around(fc.constantFrom("./", "data/", "-", "", "/data/"), fc.constantFrom("", "/")),
  hostile,
);
const endpoint = fc.oneof(
  around(
    fc.constantFrom(
      "https://",
      "http://",
      "https://host",
      "http://127.0.0.1:9000/",
      "//",
      `https://AKID:${SECRET}`,
    ),
    fc.constantFrom("", "host", ":9000", "@host", "/bucket", "?x=", "/"),
  ),
  hostile,
);
const region = fc.oneof(around(fc.constantFrom("", "eu-"), fc.constantFrom("", "central-1")), hostile);
const hoursInFile = fc.oneof(
  fc.oneof(fc.double(), fc.integer({ min: -1, max: 900_000 })).map(String),
  fc.constantFrom("0x10", " 1", "1h", "1_0", "١"),
  hostile,
);
const hours = fc.oneof(fc.double(), fc.integer({ min: -1, max: 900_000 }), mostly(hoursInFile));
const secret = fc.oneof(
  around(fc.constantFrom(SECRET, `${SECRET}/`), fc.constantFrom("", "=")),
  fc.constant(`${SECRET}/${SECRET}+=`),
);

const plain = {
  key: fc.constant(`AKID${SECRET}`),
  token: fc.constant(`tOkEn${SECRET}`),
  s3: fc.constant("s3://b/x.db"),
};
/** Settings of which each may be hostile, plain or missing. */
const settings = fc.record(
  {
    key: fc.oneof(plain.key, plain.key, mostly(secret)),
    token: fc.oneof(plain.token, plain.token, mostly(secret)),
    s3: fc.oneof(plain.s3, mostly(url)),
    folder: fc.oneof(fc.constant("data"), mostly(folder)),
    db: fc.oneof(fc.constant("a.db"), mostly(db)),
    endpoint: rarely("https://host:9000", endpoint),
    region: rarely("auto", region),
    historyHours: fc.oneof(fc.constant(1), hours),
  },
  { requiredKeys: ["key", "token", "s3"] },
);
const environment = fc
  .tuple(
    fc.dictionary(hostile, fc.option(mostly(hostile), { nil: undefined, freq: 9 })),
    fc.record(
      {
        LITESTREAM_ACCESS_KEY_ID: fc.oneof(plain.key, mostly(secret)),
        LITESTREAM_SECRET_ACCESS_KEY: fc.oneof(plain.token, mostly(secret)),
        REPLICA_URL: fc.oneof(plain.s3, mostly(url)),
        DB_FOLDER: mostly(folder),
        DB_SQLITE: mostly(db),
        REPLICA_ENDPOINT: rarely("https://host:9000", endpoint),
        REPLICA_REGION: rarely("auto", region),
        REPLICA_HISTORY_HOURS: rarely("1", hoursInFile),
        PATH: mostly(hostile),
        LOG_LEVEL: mostly(hostile),
        LITESTREAM_BIN: mostly(hostile),
        AWS_CA_BUNDLE: mostly(hostile),
      },
      { requiredKeys: [] },
    ),
  )
  .map(([rest, known]) => ({ ...rest, ...known }) as Record<string, string | undefined>);

/** The object; `undefined` where a ConfigError refuses it. Everything else that is thrown fails the test. */
function create(given: unknown, options: ConfigOptions): ConfigS3 | undefined {
  try {
    return new ConfigS3(given as Partial<SettingsInput>, options);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expectNoSecret(error, error.message, String(error.stack));
    expect(error.issues.length).toBeGreaterThan(0);
    return undefined;
  }
}

function expectNoSecret(value: object, ...more: string[]) {
  const shown = [
    inspect(value, { showHidden: true, depth: 20 }),
    JSON.stringify(value),
    String(value),
    ...more,
  ];
  expect(shown.join("\n")).not.toContain(SECRET);
}

let accepted = 0;
/** What holds for every configuration that is accepted. */
function expectSafe(config: ConfigS3 | undefined) {
  if (config === undefined) return;
  accepted += 1;
  const { s3, folder: inside, db: name, endpoint, region, historyHours } = config;
  expectNoSecret(config);
  expectNoSecret({ ...config });
  const dbpath = join(inside, name);
  expect(isAbsolute(inside)).toBe(true);
  expect(resolve(dbpath)).toBe(dbpath);
  expect([dirname(dbpath), basename(dbpath)]).toEqual([inside, name]);
  expect(s3).toMatch(/^s3:\/\/[a-z0-9]/i);

  const lists = DIALECTS.flatMap(({ replicate, list }) => [
    ...(replicate ? [replicate.args, replicate.anew ?? []] : []),
    list?.(dbpath) ?? [],
  ]);
  for (const ifReplicaExists of [true, false])
    lists.push(restoreArgs(`${dbpath}.restore-1-0`, dbpath, { ifReplicaExists }));
  // What YAML may not have in a string is escaped: JSON reads it back.
  const { dbs } = JSON.parse(configurationOf({ dbpath, s3, endpoint, region, historyHours }));
  const [replica, ...others] = dbs[0].replicas;
  expect([dbs.length, dbs[0].path, others]).toEqual([1, dbpath, []]);
  expect([replica.url, replica.endpoint, replica.region]).toEqual([s3, endpoint, region]);
  if (endpoint !== undefined) {
    const { protocol, hostname, username, password, search, hash } = new URL(endpoint);
    expect(protocol).toMatch(/^https?:$/);
    expect(hostname).not.toBe("");
    expect([username, password, search, hash]).toEqual(["", "", "", ""]);
  }
  if (region !== undefined) expect(region).toMatch(/^[\w-]+$/);
  expect(historyHours >= 0 && historyHours <= 876_000).toBe(true);
  // The lists that people see make the folder: not just anywhere on this machine.
  if (`${inside}${sep}`.startsWith(`${temp}${sep}`) && folderCanBeMade(inside)) {
    expect(config.dbpath).toBe(dbpath);
    expect(config.replicateArgs).toEqual(["litestream", "replicate", dbpath, s3]);
    expect(config.restoreArgs).toEqual(["litestream", "restore", "-v", "-o", dbpath, s3]);
  }
  for (const args of lists.filter((list) => list.length > 0)) {
    if (args[0] !== "replicate") expect(args.at(-1)).toBe(dbpath);
    for (const arg of args) {
      if (arg.startsWith("-")) expect(arg).toMatch(FLAGS);
      expect(arg).not.toContain("\0");
      // Else the system would get another text.
      expect(Buffer.from(arg).toString()).toBe(arg);
    }
  }
}

function folderCanBeMade(path: string): boolean {
  try {
    mkdirSync(path, { recursive: true });
    return true;
  } catch {
    return false; // too long
  }
}

/** A property that mostly sees refusals would say little. */
function check(property: fc.IProperty<unknown[]>) {
  accepted = 0;
  fc.assert(property, RUNS);
  expect(accepted).toBeGreaterThan(10);
}

test("any settings are refused with a ConfigError, or safe", () => {
  check(
    fc.property(settings, (given) => expectSafe(create(given, { env: {}, envFile: false }))) as fc.IProperty<
      unknown[]
    >,
  );
});

test("settings that are no plain object, have getters, prototypes or other keys", () => {
  const shapes = fc.oneof(
    odd,
    settings.map((given) => Object.create(given)),
    settings.map((given) => Object.assign(Object.create(null), given)),
    settings.map((given) => new Proxy(given, {})),
    settings.map((given) =>
      Object.defineProperty({ ...given }, "db", {
        enumerable: true,
        get: () => {
          throw new Error(SECRET);
        },
      }),
    ),
    settings.map(
      (given) =>
        new Proxy(given, {
          ownKeys: () => {
            throw new Error(SECRET);
          },
        }),
    ),
    fc
      .tuple(settings, fc.dictionary(hostile, fc.constant(SECRET)))
      .map(([given, more]) => ({ ...more, ...given })),
  );
  check(
    fc.property(shapes, (given) => expectSafe(create(given, { env: {}, envFile: false }))) as fc.IProperty<
      unknown[]
    >,
  );
});

test("any environment, and any other options", () => {
  const options = fc.record(
    { env: environment, litestream: mostly(hostile) as fc.Arbitrary<string> },
    { requiredKeys: ["env"] },
  );
  check(
    fc.property(options, fc.constantFrom({}, { s3: "s3://b/x.db" }), (given, own) =>
      expectSafe(create(own, { ...given, envFile: false })),
    ) as fc.IProperty<unknown[]>,
  );
});

test("a relative folder, and none, in a working directory that is gone", () => {
  const gone = join(temp, "gone");
  mkdirSync(gone);
  process.chdir(gone);
  try {
    rmSync(gone, { recursive: true });
    const own = { key: `AKID${SECRET}`, token: `tOkEn${SECRET}`, s3: "s3://b/x.db" };
    for (const given of [own, { ...own, folder: "data" }]) {
      const error = catchError(() => new ConfigS3(given, { env: {} }));
      expect(error).toBeInstanceOf(ConfigError);
      const problem = expect.stringContaining("the working directory, which is gone");
      expect(error).toMatchObject({ issues: [{ name: "DB_FOLDER", problem }] });
    }
    expect(new ConfigS3({ ...own, folder: temp }, { env: {} }).dbpath).toBe(join(temp, "db.sqlite"));
  } finally {
    process.chdir(temp);
  }
});

function catchError(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    return error;
  }
}

test("the name of an env file", () => {
  fc.assert(
    fc.property(hostile, (envFile) => expectSafe(create({}, { env: {}, envFile }))),
    { numRuns: 200 },
  );
});

test("any content of the env file", () => {
  const value = fc.oneof(secret, urlInFile, folder, db, endpoint, region, hoursInFile, hostile);
  const line = fc
    .tuple(
      fc.constantFrom("", "export ", " ", "#", "\t"),
      fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom(...NAMES) },
        { weight: 1, arbitrary: fc.oneof(hostile, fc.constant("LITESTREAM_BIN")) },
      ),
      fc.constantFrom("=", "= ", ": ", ""),
      fc.constantFrom("", '"', "'", "`"),
      value,
    )
    .map(([lead, name, is, quote, text]) => `${lead}${name}${is}${quote}${text}${quote}`);
  const content = fc.oneof(
    fc.array(line, { maxLength: 8 }).map((lines) => Buffer.from(lines.join("\n"))),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(fc.constantFrom(...NAMES), fc.uint8Array())
      .map(([name, bytes]) => Buffer.concat([Buffer.from(`${name}=`), bytes])),
  );
  const file = join(temp, ".env");
  const own = { key: `AKID${SECRET}`, token: `tOkEn${SECRET}`, s3: "s3://b/x.db" };
  check(
    fc.property(content, fc.boolean(), (bytes, alone) => {
      writeFileSync(file, bytes);
      expectSafe(create(alone ? {} : own, { env: {} }));
    }) as fc.IProperty<unknown[]>,
  );
});
