import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { ConfigError, type ConfigOptions, ConfigS3, type SettingsInput } from "../../src/index.ts";
import { tempFolder } from "../support/setup.ts";

const REQUIRED = { key: "AKIDGIVEN", token: "sEcReTgiven", s3: "s3://given/x.db" };
const ENV = {
  LITESTREAM_ACCESS_KEY_ID: "AKIDENV",
  LITESTREAM_SECRET_ACCESS_KEY: "sEcReTenv",
  REPLICA_URL: "s3://env/x.db",
  DB_FOLDER: "/from/env",
  DB_SQLITE: "env.db",
};
const ENV_NAMES = Object.keys(ENV);
const FROM_ENV = {
  key: "AKIDENV",
  token: "sEcReTenv",
  s3: "s3://env/x.db",
  folder: "/from/env",
  db: "env.db",
};
const FROM_FILE = {
  key: "AKIDFILE",
  token: "sEcReTfile",
  s3: "s3://file/x.db",
  folder: "/from/file",
  db: "file.db",
};
const FILE = `# a comment
LITESTREAM_ACCESS_KEY_ID=AKIDFILE
LITESTREAM_SECRET_ACCESS_KEY="sEcReTfile"
export REPLICA_URL=s3://file/x.db
DB_FOLDER=/from/file
DB_SQLITE=file.db
`;

/** Not from this machine's environment or `.env`, unless a test says so. */
function create(settings: Partial<SettingsInput> = {}, options: ConfigOptions = {}): ConfigS3 {
  return new ConfigS3(settings, { env: {}, envFile: false, ...options });
}

function valuesOf({ key, token, s3, folder, db }: ConfigS3): SettingsInput {
  return { key, token, s3, folder, db };
}

/** The error of unusable settings, which JavaScript callers may give in any shape. */
function errorOf(settings: unknown, options: ConfigOptions = {}): ConfigError {
  try {
    create(settings as Partial<SettingsInput>, options);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

function namesIn(error: ConfigError): string[] {
  return error.issues.map(({ name }) => name);
}

function envFileWith(text: string): string {
  const file = join(tempFolder(), "settings.env");
  writeFileSync(file, text);
  return file;
}

/** Makes a folder of its own the working directory of the test. */
function enterTempFolder(): string {
  const before = process.cwd();
  process.chdir(tempFolder());
  onTestFinished(() => process.chdir(before));
  return process.cwd();
}

describe("where a setting comes from", () => {
  test("the constructor comes before the environment and the env file", () => {
    const given = { ...REQUIRED, folder: "/given", db: "given.db" };
    expect(valuesOf(create(given, { env: ENV, envFile: envFileWith(FILE) }))).toEqual(given);
  });

  test("the environment comes before the env file", () => {
    expect(valuesOf(create({}, { env: ENV, envFile: envFileWith(FILE) }))).toEqual(FROM_ENV);
  });

  test("the env file comes before the defaults", () => {
    expect(valuesOf(create({}, { envFile: envFileWith(FILE) }))).toEqual(FROM_FILE);
  });

  test("each setting is looked up on its own", () => {
    const env = { REPLICA_URL: ENV.REPLICA_URL };
    const config = create({ db: "given.db" }, { env, envFile: envFileWith(FILE) });
    expect(valuesOf(config)).toEqual({ ...FROM_FILE, s3: FROM_ENV.s3, db: "given.db" });
  });

  test("the default is data in the working directory and db.sqlite", () => {
    const { folder, db } = create(REQUIRED);
    expect({ folder, db }).toEqual({ folder: join(process.cwd(), "data"), db: "db.sqlite" });
  });

  test("without options.env it is process.env", () => {
    for (const [name, value] of Object.entries(ENV)) {
      const before = process.env[name];
      process.env[name] = value;
      onTestFinished(() => {
        if (before === undefined) delete process.env[name];
        else process.env[name] = before;
      });
    }
    expect(valuesOf(new ConfigS3({}, { envFile: false }))).toEqual(FROM_ENV);
  });

  test("options.env stands in for process.env as a whole", () => {
    process.env.REPLICA_URL = "s3://process/x.db";
    onTestFinished(() => {
      delete process.env.REPLICA_URL;
    });
    const { s3: _, ...rest } = REQUIRED;
    expect(namesIn(errorOf(rest))).toEqual(["REPLICA_URL"]);
  });
});

describe("an empty value counts as missing", () => {
  test("in the constructor, also undefined: the environment is asked", () => {
    const empty = { key: "", token: "", s3: undefined as unknown as string, folder: "", db: "" };
    expect(valuesOf(create(empty, { env: ENV }))).toEqual(FROM_ENV);
  });

  test("in the environment: the env file is asked", () => {
    const env = Object.fromEntries(ENV_NAMES.map((name) => [name, ""]));
    expect(valuesOf(create({}, { env, envFile: envFileWith(FILE) }))).toEqual(FROM_FILE);
  });

  test("in the env file: the default is taken, or it is missing", () => {
    const envFile = envFileWith("REPLICA_URL=\nDB_FOLDER=\nDB_SQLITE=''\n");
    expect(create(REQUIRED, { envFile }).db).toBe("db.sqlite");
    expect(create(REQUIRED, { envFile }).folder).toBe(join(process.cwd(), "data"));
    const { s3: _, ...rest } = REQUIRED;
    expect(errorOf(rest, { envFile }).message).toContain("REPLICA_URL: is missing");
  });
});

describe("the folder", () => {
  test("is made absolute", () => {
    expect(create({ ...REQUIRED, folder: "var/db" }).folder).toBe(join(process.cwd(), "var/db"));
    expect(create({ ...REQUIRED, folder: "/var/../srv/db/" }).folder).toBe("/srv/db");
  });

  test("stays the same when the working directory changes later", () => {
    const config = create({ ...REQUIRED, folder: "here" });
    const before = process.cwd();
    enterTempFolder();
    expect(config.folder).toBe(join(before, "here"));
  });
});

describe("the env file", () => {
  test("is .env in the working directory", () => {
    writeFileSync(join(enterTempFolder(), ".env"), FILE);
    expect(valuesOf(new ConfigS3({}, { env: {} }))).toEqual(FROM_FILE);
  });

  test("may be missing where it is the default one", () => {
    const folder = enterTempFolder();
    expect(valuesOf(new ConfigS3(REQUIRED, { env: {} }))).toEqual({
      ...REQUIRED,
      folder: join(folder, "data"),
      db: "db.sqlite",
    });
  });

  test("must be there where it is named", () => {
    const envFile = join(tempFolder(), "missing.env");
    const error = errorOf(REQUIRED, { envFile });
    expect(namesIn(error)).toEqual(["envFile"]);
    expect(error.message).toContain(envFile);
  });

  test("that is there but can't be read is an error, also the default one", () => {
    mkdirSync(join(enterTempFolder(), ".env"));
    expect(() => new ConfigS3(REQUIRED, { env: {} })).toThrow(/envFile: can't be read: EISDIR/);
  });

  test("is not read with false", () => {
    writeFileSync(join(enterTempFolder(), ".env"), FILE);
    expect(namesIn(errorOf({}, { envFile: false }))).toEqual(ENV_NAMES.slice(0, 3));
  });

  test("is never written into process.env", () => {
    const before = { ...process.env };
    create({}, { envFile: envFileWith(`${FILE}OTHER_SETTING=1\n`) });
    expect({ ...process.env }).toEqual(before);
  });
});

describe("ConfigError", () => {
  test("lists all that is missing, by its environment name, and how to set it", () => {
    const error = errorOf({});
    expect(error.message).toBe(
      [
        "These settings can't be used:",
        "  LITESTREAM_ACCESS_KEY_ID: is missing: set it in the environment, in .env, or as `key` in the constructor",
        "  LITESTREAM_SECRET_ACCESS_KEY: is missing: set it in the environment, in .env, or as `token` in the constructor",
        "  REPLICA_URL: is missing: set it in the environment, in .env, or as `s3` in the constructor",
      ].join("\n"),
    );
    expect(error).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
  });

  test("lists every problem of every kind at once", () => {
    const settings = { token: "a\nb", s3: "http://x", folder: "a\0b", db: "../x.db", bucket: "x", Key: "x" };
    expect(namesIn(errorOf(settings)).sort()).toEqual([...ENV_NAMES, "bucket", "Key"].sort());
  });

  test("lists a setting once, whatever is wrong with it", () => {
    expect(namesIn(errorOf({ ...REQUIRED, db: `../${"X".repeat(60)}\n` }))).toEqual(["DB_SQLITE"]);
  });

  test("names the setting also where the bad value came from the environment or the file", () => {
    expect(namesIn(errorOf({}, { env: { ...ENV, REPLICA_URL: "x" } }))).toEqual(["REPLICA_URL"]);
    expect(namesIn(errorOf({}, { envFile: envFileWith(`${FILE}DB_SQLITE=x\n`) }))).toEqual(["DB_SQLITE"]);
  });

  test("refuses unknown keys, also those without a value, and says what there is", () => {
    const error = errorOf({ ...REQUIRED, bucket: undefined, DB_SQLITE: "" });
    expect(namesIn(error)).toEqual(["bucket", "DB_SQLITE"]);
    expect(error.message).toContain("is no setting; there are key, token, s3, folder, db");
  });

  test.each([null, "s3://x/y", 5])("settings that are no object: %s", (settings) => {
    expect(namesIn(errorOf(settings))).toEqual(["settings"]);
  });

  test("holds no secret's value, whatever is wrong with it", () => {
    const secrets = ["AKIDsHoWn", "tOkEnsHoWn", "uRlsHoWn", "oThErsHoWn"] as const;
    const [key, token, url, other] = secrets;
    const errors = [
      errorOf({ key: `${key}\n`, token: `\0${token}`, s3: `s3://x:${url}@bucket/path`, tokne: other }),
      errorOf({ key: [key], token: { token }, s3: { url }, folder: [other], db: 5 }),
      errorOf({ key, token, s3: `s3://bucket/x?secret-access-key=${url}` }),
      errorOf({ key, token, s3: REQUIRED.s3 }, { envFile: join(tempFolder(), "missing") }),
      errorOf({}, { env: { ...ENV, LITESTREAM_SECRET_ACCESS_KEY: `${token}\u007f`, REPLICA_URL: `${url}` } }),
      errorOf({}, { envFile: envFileWith(`LITESTREAM_SECRET_ACCESS_KEY="${token}\nx"\n`) }),
    ];
    for (const error of errors) {
      const shown = [
        error.message,
        String(error.stack),
        inspect(error, { showHidden: true, depth: 20 }),
        JSON.stringify(error),
      ].join("\n");
      for (const secret of secrets) expect(shown).not.toContain(secret);
    }
  });
});

describe("what each setting may be", () => {
  const filled = (before: string, length: number, after: string) =>
    before + "x".repeat(length - before.length - after.length) + after;

  test.each([
    ["100 characters", filled("s3://b/", 100, ".db")],
    ["a bucket with dots and dashes", "s3://my.own-bucket_1/x.db"],
    ["a bucket on an S3-compatible host", "s3://bucket.localhost:9000/path/x.db"],
    ["an @ in the path", "s3://bucket/me@home/x.db"],
    ["parameters without secrets", "s3://bucket/x.db?part-size=5242880"],
  ])("s3: %s", (_, s3) => {
    expect(create({ ...REQUIRED, s3 }).s3).toBe(s3);
  });

  test.each([
    ["101 characters", filled("s3://b/", 101, ".db"), "100 characters at most"],
    ["no scheme", "bucket/x.db", "must look like s3://bucket/path"],
    ["another scheme", "https://bucket/x.db", "must look like s3://bucket/path"],
    ["capital letters in the scheme", "S3://bucket/x.db", "must look like s3://bucket/path"],
    ["one slash", "s3:/bucket/x.db", "must look like s3://bucket/path"],
    ["something before the scheme", " s3://bucket/x.db", "must look like s3://bucket/path"],
    ["nothing behind the scheme", "s3://", "names no bucket"],
    ["a path without a bucket", "s3:///x.db", "names no bucket"],
    ["parameters without a bucket", "s3://?region=eu-west-1", "names no bucket"],
    ["a fragment without a bucket", "s3://#x", "names no bucket"],
    ["a bucket of dots", "s3://../x.db", "must look like"],
    ["a bucket of spaces", "s3://   /x.db", "must look like"],
    ["a bucket with a backslash", "s3://a\\b/x.db", "must look like"],
    ["a space in the path", "s3://bucket/x y.db", "must look like"],
    ["a key and a secret", "s3://AKID:sEcReT@bucket/x.db", "must not carry credentials"],
    ["a key alone", "s3://AKID@bucket/x.db", "must not carry credentials"],
    ["an empty user", "s3://@bucket/x.db", "must not carry credentials"],
    ["a secret with a slash", "s3://AKID:sEc/ReT@bucket/x.db", "must not carry credentials"],
    ["a secret with a slash behind digits", "s3://AKID:12/ReT@bucket/x.db", "must not carry credentials"],
    ["a port that is none", "s3://bucket:sEcReT/x.db", "must look like"],
    ["an encoded @", "s3://AKID:sEcReT%40bucket/x.db", "must look like"],
    [
      "a key in a parameter",
      "s3://bucket/x.db?region=x&access-key-id=AKID&secret=S",
      "must not carry credentials",
    ],
    ["a secret in a fragment", "s3://bucket/x.db#token=sEcReT", "must not carry credentials"],
    ["a bucket alone", "s3://bucket", "names no path"],
    ["a bucket and slashes", "s3://bucket//", "names no path"],
    ["a bucket and parameters", "s3://bucket/?region=x", "names no path"],
    ["a path of dots", "s3://bucket/./x.db", "names no path"],
    ["a path that leads out", "s3://bucket/a/../../x.db", "names no path"],
    ["a fragment", "s3://bucket/x.db#1", "must not contain #"],
    ["half an escape", "s3://bucket/x%zz.db", "broken % escape"],
    ["an escaped NUL", "s3://bucket/x%00.db", "broken % escape"],
    ["a newline at the end", "s3://bucket/x.db\n", "control character"],
    ["a newline inside", "s3://bucket/\nx.db", "control character"],
    ["NUL", "s3://bucket/x\0.db", "control character"],
  ])("not s3: %s", (_, s3, problem) => {
    expect(errorOf({ ...REQUIRED, s3 }).issues).toEqual([
      { name: "REPLICA_URL", problem: expect.stringContaining(problem) },
    ]);
  });

  test.each([
    ["a name", "https://s3.example.com"],
    ["an address and a port", "http://127.0.0.1:9000"],
    ["IPv6", "http://[::1]:9000"],
    ["a slash at the end", "https://s3.example.com/"],
    ["a path before the buckets", "https://gateway.example.com/s3"],
    ["200 characters", filled("https://s3.", 200, ".com")],
  ])("endpoint: %s", (_, endpoint) => {
    expect(create({ ...REQUIRED, endpoint }).endpoint).toBe(endpoint);
    expect(create(REQUIRED, { env: { REPLICA_ENDPOINT: endpoint } }).endpoint).toBe(endpoint);
  });

  test.each([
    ["201 characters", filled("https://s3.", 201, ".com"), "200 characters at most"],
    ["no scheme", "s3.example.com", "must look like https://host"],
    ["another scheme", "s3://s3.example.com", "must look like https://host"],
    ["no host", "https://", "must look like https://host"],
    ["a port that is none", "http://127.0.0.1:99999", "must look like https://host"],
    ["parameters", "https://s3.example.com?region=x", "without a bucket or parameters"],
    ["a fragment", "https://s3.example.com/#x", "without a bucket or parameters"],
    ["a space", "https://s3.example .com", "must look like https://host"],
    ["credentials", "https://AKID:hUsHhUsH@s3.example.com", "must not carry credentials"],
    ["a newline", "https://s3.example.com\n", "control character"],
  ])("not endpoint: %s", (_, endpoint, problem) => {
    const error = errorOf({ ...REQUIRED, endpoint });
    expect(error.issues).toEqual([{ name: "REPLICA_ENDPOINT", problem: expect.stringContaining(problem) }]);
    expect(inspect(error)).not.toContain("hUsHhUsH");
  });

  test("neither endpoint nor region may have the secret in it", () => {
    const token = "sEcReTgivenAtLength";
    const settings = { ...REQUIRED, token, endpoint: `https://${token}.example.com`, region: token };
    const error = errorOf(settings);
    expect(namesIn(error)).toEqual(["REPLICA_ENDPOINT", "REPLICA_REGION"]);
    expect(inspect(error)).not.toContain(token);
  });

  test.each(["auto", "eu-central-1", "garage", "US", "x".repeat(50)])("region: %s", (region) => {
    expect(create({ ...REQUIRED, region }).region).toBe(region);
    expect(create(REQUIRED, { env: { REPLICA_REGION: region } }).region).toBe(region);
  });

  test.each(["eu central", "eu_central", "a/b", "x".repeat(51), "ü"])("not region: %s", (region) => {
    expect(errorOf({ ...REQUIRED, region }).issues).toEqual([
      { name: "REPLICA_REGION", problem: expect.stringContaining("must be a region's name") },
    ]);
  });

  test("without an address or a region there is none", () => {
    const env = { REPLICA_ENDPOINT: "", REPLICA_REGION: "" };
    expect(create({ ...REQUIRED, endpoint: "", region: "" }, { env })).toMatchObject({
      endpoint: undefined,
      region: undefined,
    });
  });

  test.each([
    [0, 0],
    [0.5, 0.5],
    ["72", 72],
    ["1.5", 1.5],
    [876_000, 876_000],
    ["", 24],
    [undefined, 24],
  ])("historyHours: %o", (given, expected) => {
    const env = { REPLICA_HISTORY_HOURS: given === undefined ? undefined : String(given) };
    expect(create(REQUIRED, { env }).historyHours).toBe(expected);
    if (typeof given === "number")
      expect(create({ ...REQUIRED, historyHours: given }).historyHours).toBe(given);
  });

  test.each([-1, Number.NaN, Number.POSITIVE_INFINITY, 876_001, "24h", "-1", " 24", "1e3", "0x10", null, {}])(
    "not historyHours: %o",
    (historyHours) => {
      expect(errorOf({ ...REQUIRED, historyHours } as object).issues).toEqual([
        { name: "REPLICA_HISTORY_HOURS", problem: "must be a number of hours, 0 to 876000" },
      ]);
    },
  );

  test.each([
    ["50 characters", filled("a", 50, ".sqlite")],
    ["one letter", "a.db"],
    ["more than 20 letters", `${"abcde".repeat(5)}.db`],
    ["digits, dots, dashes and spaces behind the first letter", "a1.2-3 4..x.sqlite"],
    ["capital letters behind the first", "myApp.db"],
  ])("db: %s", (_, db) => {
    expect(create({ ...REQUIRED, db }).db).toBe(db);
  });

  test.each([
    ["51 characters", filled("a", 51, ".sqlite"), "50 characters at most"],
    ["a capital letter first", "App.db", "must begin with a small letter"],
    ["a digit first", "1.db", "must begin with a small letter"],
    ["a dot first", ".db", "must begin with a small letter"],
    ["an umlaut first", "äpp.db", "must begin with a small letter"],
    ["no ending", "app", "end in .sqlite or .db"],
    ["no dot before the ending", "appdb", "end in .sqlite or .db"],
    ["another ending", "app.sqlite3", "end in .sqlite or .db"],
    ["something behind the ending", "app.db-wal", "end in .sqlite or .db"],
    ["an ending in capital letters", "app.DB", "end in .sqlite or .db"],
    ["a folder", "sub/app.db", "plain file name"],
    ["a way out of the folder", "../app.db", "plain file name"],
    ["a way out behind a letter", "a/../../app.db", "plain file name"],
    ["a backslash", "a\\..\\app.db", "plain file name"],
    ["an absolute path", "/etc/app.db", "plain file name"],
    ["a newline at the end", "app.db\n", "control character"],
    ["a newline inside", "app\n.db", "control character"],
    ["a carriage return", "app\r.db", "control character"],
    ["NUL", "app\0.db", "control character"],
    ["a Unicode line separator", "app\u2028.db", "must have no line separator in it"],
    ["a question mark", "a?b.db", "must not contain ?"],
    ["a hash", "a#b.db", "must not contain ?, #"],
    ["an escape", "a%41b.db", "must not contain ?, # or %"],
  ])("not db: %s", (_, db, problem) => {
    expect(errorOf({ ...REQUIRED, db }).issues).toEqual([
      { name: "DB_SQLITE", problem: expect.stringContaining(problem) },
    ]);
  });

  const CONTROL = { newline: "a\nb", NUL: "a\0b", escape: "a\u001bb", delete: "a\u007fb" };
  test.each(
    Object.entries(CONTROL).flatMap(([name, value]) =>
      (["key", "token", "folder"] as const).map((field) => [field, name, value] as const),
    ),
  )("not %s: with a control character (%s)", (field, _, value) => {
    const names = { key: ENV_NAMES[0], token: ENV_NAMES[1], folder: "DB_FOLDER" };
    expect(errorOf({ ...REQUIRED, [field]: value }).issues).toEqual([
      { name: names[field], problem: "must not contain a newline, NUL or other control character" },
    ]);
  });

  test.each([null, 5, 0, true, {}, ["x"], Symbol("x"), () => "x", new URL("file:///x")])(
    "not a string: %s",
    (value) => {
      const all = { key: value, token: value, s3: value, folder: value, db: value };
      const { issues } = errorOf(all);
      expect(issues).toEqual(ENV_NAMES.map((name) => ({ name, problem: "must be a string" })));
    },
  );

  test.each(["key", "token", "s3", "folder", "db"] as const)("not %s: with half a character", (field) => {
    const given = { ...REQUIRED, [field]: `${field === "s3" ? "s3://b/" : "a"}\ud800.db` };
    expect(errorOf(given).issues).toEqual([
      { name: expect.any(String), problem: "must not contain half a character (a lone surrogate)" },
    ]);
  });

  test("a getter that throws: refused, without its words", () => {
    const given = Object.defineProperty({}, "token", {
      get: () => {
        throw new Error("tOkEnsHoWn");
      },
    });
    const error = errorOf(given);
    expect(namesIn(error)).toEqual(["settings"]);
    expect(inspect(error, { showHidden: true })).not.toContain("tOkEnsHoWn");
  });

  test("the secret in a setting that is shown", () => {
    const token = "tOkEn/tOkEn+tOkEn";
    const s3 = `s3://bucket/${encodeURIComponent(token)}`;
    const { issues } = errorOf({ ...REQUIRED, token, s3, folder: `/data/${token}` });
    const problem = "must not contain LITESTREAM_SECRET_ACCESS_KEY";
    expect(issues).toEqual(["REPLICA_URL", "DB_FOLDER"].map((name) => ({ name, problem })));
    expect(create({ ...REQUIRED, token: "minioadmin", s3: "s3://minioadmin/x.db" }).db).toBe("db.sqlite");
  });

  test("an own __proto__ key, as JSON can have it, is refused like every unknown key", () => {
    const settings = JSON.parse('{"key":"k","token":"t","__proto__":{"s3":"s3://elsewhere/x.db"}}');
    expect(() => create(settings)).toThrow(ConfigError);
  });

  test.each(["/data/100%", "/data/a?b", "relative#1"])(
    "not folder: %s, litestream would open another file",
    (folder) => {
      expect(errorOf({ ...REQUIRED, folder }).issues).toEqual([
        { name: "DB_FOLDER", problem: expect.stringContaining("must not contain ?, # or %") },
      ]);
    },
  );
});
