import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { ConfigError, type ConfigIssue, ConfigS3, type SettingsInput } from "../../src/index.ts";
import { tempFolder } from "../support/setup.ts";

const KEY = "AKIDGIVEN";
const TOKEN = "sEcReTgiven";
const REQUIRED = { key: KEY, token: TOKEN, s3: "s3://given/x.db" };

const create = (settings: Partial<SettingsInput>) =>
  new ConfigS3({ ...REQUIRED, ...settings }, { env: {}, envFile: false });

function issuesOf(make: () => unknown): readonly ConfigIssue[] {
  try {
    make();
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  return [];
}

const refused = (settings: Partial<SettingsInput>) => issuesOf(() => create(settings));

function withEnvFile(content: string | Buffer): string {
  const file = join(tempFolder(), "settings.env");
  writeFileSync(file, content);
  return file;
}

const readFile = (content: string | Buffer, given: Partial<SettingsInput> = {}) =>
  new ConfigS3(given, { env: {}, envFile: withEnvFile(content) });

describe("a store's address in the place of the bucket is refused, with the settings that were meant", () => {
  test.each([
    ["minio:9000/bkt/app", "http://minio:9000", "s3://bkt/app"],
    ["localhost:9000/bkt/app", "http://localhost:9000", "s3://bkt/app"],
    ["localhost/bkt/app", "https://localhost", "s3://bkt/app"],
    ["127.0.0.1:9000/bkt/prod/app.db", "http://127.0.0.1:9000", "s3://bkt/prod/app.db"],
    ["[::1]:9000/bkt/app", "http://[::1]:9000", "s3://bkt/app"],
    ["10.0.0.5/bkt/app", "https://10.0.0.5", "s3://bkt/app"],
    ["minio:443/bkt/app", "https://minio:443", "s3://bkt/app"],
    ["minio:9000/bkt", "http://minio:9000", "s3://bkt/PATH"],
    ["minio:9000", "http://minio:9000", "s3://BUCKET/PATH"],
    ["s3.internal:9000/bkt/app", "http://s3.internal:9000", "s3://bkt/app"],
    ["minio.example.com:9000/bkt/app", "http://minio.example.com:9000", "s3://bkt/app"],
    ["acc.r2.cloudflarestorage.com/bkt/app", "https://acc.r2.cloudflarestorage.com", "s3://bkt/app"],
    ["acc.eu.r2.cloudflarestorage.com/bkt/app", "https://acc.eu.r2.cloudflarestorage.com", "s3://bkt/app"],
    ["bkt.acc.r2.cloudflarestorage.com/app", "https://acc.r2.cloudflarestorage.com", "s3://bkt/app"],
    ["nyc3.digitaloceanspaces.com/bkt/app", "https://nyc3.digitaloceanspaces.com", "s3://bkt/app"],
    ["s3.us-west-004.backblazeb2.com/bkt/app", "https://s3.us-west-004.backblazeb2.com", "s3://bkt/app"],
    ["s3.eu-central-1.wasabisys.com/bkt/app", "https://s3.eu-central-1.wasabisys.com", "s3://bkt/app"],
    ["bkt.s3.wasabisys.com/app", "https://s3.wasabisys.com", "s3://bkt/app"],
    ["s3.fr-par.scw.cloud/bkt/app", "https://s3.fr-par.scw.cloud", "s3://bkt/app"],
    ["fly.storage.tigris.dev/bkt/app", "https://fly.storage.tigris.dev", "s3://bkt/app"],
  ])("%s", (place, endpoint, s3) => {
    const [issue, ...others] = refused({ s3: `s3://${place}` });
    expect(others).toEqual([]);
    expect(issue).toEqual({
      name: "REPLICA_URL",
      problem: `names a store's address in the place of the bucket, but that belongs into REPLICA_ENDPOINT: set REPLICA_ENDPOINT=${endpoint} and REPLICA_URL=${s3}`,
    });
    // What is advised is taken.
    const advised = s3.replace("BUCKET", "bkt").replace("PATH", "app");
    expect(create({ s3: advised, endpoint })).toMatchObject({ s3: advised, endpoint });
  });

  test.each([
    ["s3.eu-central-1.amazonaws.com/bkt/app", " and REPLICA_REGION=eu-central-1"],
    ["s3-eu-west-1.amazonaws.com/bkt/app", " and REPLICA_REGION=eu-west-1"],
    ["s3.dualstack.us-east-2.amazonaws.com/bkt/app", " and REPLICA_REGION=us-east-2"],
    ["bkt.s3-eu-west-1.amazonaws.com/app", " and REPLICA_REGION=eu-west-1"],
    ["s3.amazonaws.com/bkt/app", ""],
  ])("%s: AWS needs its region, and no address", (place, region) => {
    expect(refused({ s3: `s3://${place}` })).toEqual([
      {
        name: "REPLICA_URL",
        problem: expect.stringContaining(`: set REPLICA_URL=s3://bkt/app${region}; for AWS without`),
      },
    ]);
  });

  test.each([
    "s3://bkt.localhost:9000/app",
    "s3://s3.localhost:9000/app",
    "s3://bkt.minio:9000/app",
    "s3://bkt.minio.internal:9000/prod/app",
    "s3://bkt.s3.eu-central-1.amazonaws.com/app",
    "s3://bkt.nyc3.digitaloceanspaces.com/app",
    "s3://my.bkt.s3.us-west-004.backblazeb2.com/app",
    "s3://backups.example.com/app",
    "s3://s3.example.com/app",
    "s3://minio/app",
    "s3://com.example.s3/app",
    "s3://1.2.3/app",
  ])("%s is left alone, as a litestream takes it or a bucket may be called that", (s3) => {
    expect(create({ s3 }).s3).toBe(s3);
    expect(create({ s3, endpoint: "https://store.example.org" }).s3).toBe(s3);
  });

  test("what was meant is not said where it would show the secret", () => {
    const [issue] = refused({ s3: `s3://minio:9000/bkt/${TOKEN}` });
    expect(issue?.problem).toBe(
      "names a store's address in the place of the bucket, but that belongs into REPLICA_ENDPOINT",
    );
  });
});

describe("an endpoint with the bucket in it is refused, with the one that was meant", () => {
  test.each([
    ["https://host.example.org/bkt", "https://host.example.org"],
    ["https://host.example.org/bkt/", "https://host.example.org"],
    ["http://127.0.0.1:9000/s3/bkt", "http://127.0.0.1:9000/s3"],
    ["https://host.example.org/bkt/app", "https://host.example.org"],
    ["https://bkt.s3.example.org", "https://s3.example.org"],
    ["https://bkt.s3.example.org:8443", "https://s3.example.org:8443"],
    ["https://bkt.acc.r2.cloudflarestorage.com", "https://acc.r2.cloudflarestorage.com"],
    ["https://bkt.t3.storage.dev", "https://t3.storage.dev"],
  ])("%s", (endpoint, meant) => {
    const issue = {
      name: "REPLICA_ENDPOINT",
      problem: `must not have the bucket in it, which REPLICA_URL names: set REPLICA_ENDPOINT=${meant}`,
    };
    expect(refused({ s3: "s3://bkt/app", endpoint })).toEqual([issue]);
    expect(refused({ s3: "s3://bkt.localhost:9000/app", endpoint })).toEqual([issue]);
    expect(create({ s3: "s3://bkt/app", endpoint: meant }).endpoint).toBe(meant);
  });

  test.each(["https://bkt.example.org", "https://host.example.org/s3", "https://abkt.s3.example.org"])(
    "%s may be the store's own name",
    (endpoint) => {
      expect(create({ s3: "s3://bkt/app", endpoint }).endpoint).toBe(endpoint);
    },
  );
});

describe("endpoint and region in the URL, which 0.3 would ignore there, are settings", () => {
  test.each([
    ["?endpoint=localhost:9000&region=eu-west-1", "http://localhost:9000", "eu-west-1", ""],
    ["?endpoint=https%3A%2F%2Fs3.example.org", "https://s3.example.org", undefined, ""],
    ["?endpoint=s3.example.org&part-size=5242880", "https://s3.example.org", undefined, "?part-size=5242880"],
    ["?skipVerify=true&region=auto", undefined, "auto", "?skipVerify=true"],
    // Only path style can be had with an endpoint of the configuration.
    [
      "?endpoint=s3.example.org&forcePathStyle=false",
      undefined,
      undefined,
      "?endpoint=s3.example.org&forcePathStyle=false",
    ],
  ])("%s", (query, endpoint, region, rest) => {
    const { s3, ...config } = create({ s3: `s3://bkt/app${query}` });
    expect(s3).toBe(`s3://bkt/app${rest}`);
    const { endpoint: address, region: place } = create({ s3: `s3://bkt/app${query}` });
    expect([address, place]).toEqual([endpoint, region]);
    expect(config).toEqual({ db: "db.sqlite" });
  });

  test("the same in REPLICA_ENDPOINT and REPLICA_REGION is fine, another is refused", () => {
    const s3 = "s3://bkt/app?endpoint=s3.example.org&region=auto";
    expect(create({ s3, endpoint: "https://s3.example.org/", region: "auto" }).s3).toBe("s3://bkt/app");
    expect(refused({ s3, endpoint: "https://elsewhere.example.org", region: "us-east-1" })).toEqual([
      { name: "REPLICA_URL", problem: expect.stringContaining("says otherwise than REPLICA_ENDPOINT") },
      { name: "REPLICA_URL", problem: expect.stringContaining("says otherwise than REPLICA_REGION") },
    ]);
  });

  test("one that can't be used is refused as it would be in its own setting", () => {
    expect(refused({ s3: "s3://bkt/app?endpoint=ftp://x&region=a%20b" })).toEqual([
      { name: "REPLICA_URL", problem: expect.stringContaining("parameter endpoint must look like https://") },
      { name: "REPLICA_URL", problem: expect.stringContaining("parameter region must be a region's name") },
    ]);
    expect(refused({ s3: "s3://bkt/app?endpoint=s3.example.org/bkt" })).toEqual([
      { name: "REPLICA_ENDPOINT", problem: expect.stringContaining("must not have the bucket in it") },
    ]);
  });
});

describe("an env file", () => {
  const FILE = `LITESTREAM_ACCESS_KEY_ID=${KEY}\nLITESTREAM_SECRET_ACCESS_KEY=${TOKEN}\nREPLICA_URL=s3://bkt/app\n`;
  const swapped = (text: string) => Buffer.from(text, "utf16le").swap16();

  test.each([
    ["UTF-16 LE with a mark", Buffer.from(`\ufeff${FILE}`, "utf16le")],
    ["UTF-16 BE with a mark", swapped(`\ufeff${FILE}`)],
    ["UTF-16 LE without a mark", Buffer.from(FILE, "utf16le")],
    ["UTF-16 BE without a mark", swapped(FILE)],
  ])("%s is refused by name, and how to save it is said", (_, bytes) => {
    const [issue, ...others] = issuesOf(() => readFile(bytes));
    expect(others).toEqual([]);
    expect(issue).toEqual({
      name: "envFile",
      problem: expect.stringMatching(/settings\.env is UTF-16, .*: save it as UTF-8 /),
    });
  });

  test("UTF-8 with a mark, and with Windows' ends of lines, just works", () => {
    expect(readFile(`\ufeff${FILE}`).key).toBe(KEY);
    expect(readFile(`\ufeff${FILE.replaceAll("\n", "\r\n")}`)).toMatchObject({
      key: KEY,
      s3: "s3://bkt/app",
    });
  });

  test.each([
    ["REPLICA_URL", "s3://bkt/app#1"],
    ["DB_FOLDER", "/data/app#1"],
    ["DB_SQLITE", "app.db#x"],
  ])("%s that is cut at an unquoted #, so that it names another place, is refused", (name, value) => {
    expect(issuesOf(() => readFile(`${FILE}${name}=${value}\n`))).toEqual([
      { name, problem: expect.stringMatching(/^has a # right behind its value in the env file/) },
    ]);
    // What comes from elsewhere is not cut.
    const own = { s3: "s3://bkt/x", folder: "/data", db: "x.db" };
    expect(readFile(`${FILE}${name}=${value}\n`, own)).toMatchObject({ s3: "s3://bkt/x", db: "x.db" });
  });

  test.each([
    "REPLICA_URL=s3://bkt/app # a comment",
    "REPLICA_URL='s3://bkt/app'#comment",
    'REPLICA_URL="s3://bkt/app" # a "comment"',
    "REPLICA_URL=s3://bkt/x#1\nREPLICA_URL=s3://bkt/app",
    "OTHER=a#b\nREPLICA_URL=s3://bkt/app",
    "DB_FOLDER= # none",
    "DB_FOLDER=#none",
    "#REPLICA_URL=s3://bkt/x#1",
  ])("a comment is one, and what counts is not cut: %s", (line) => {
    expect(readFile(`${FILE}${line}\n`).s3).toBe("s3://bkt/app");
  });

  test("a secret that begins with an unquoted # is not just missing", () => {
    const text = `LITESTREAM_ACCESS_KEY_ID=${KEY}\nLITESTREAM_SECRET_ACCESS_KEY=#${TOKEN}\nREPLICA_URL=s3://bkt/app\n`;
    const [issue] = issuesOf(() => readFile(text));
    expect(issue).toEqual({
      name: "LITESTREAM_SECRET_ACCESS_KEY",
      problem: expect.stringMatching(
        /^is missing, since its value in the env file begins with a #: put it into/,
      ),
    });
    expect(issue?.problem).not.toContain(TOKEN);
  });

  test("a letter that was lost in another encoding is told from a wrong secret", () => {
    const text = FILE.replace(TOKEN, `${TOKEN}ü`);
    expect(issuesOf(() => readFile(Buffer.from(text, "latin1")))).toEqual([
      {
        name: "LITESTREAM_SECRET_ACCESS_KEY",
        problem: expect.stringMatching(/lost character: save the env file as UTF-8/),
      },
    ]);
  });
});

describe("a value with what nobody types on purpose", () => {
  test.each([
    ["a lost character", `${KEY}\ufffd`, "in the place of a lost character"],
    ["a zero-width space", `${KEY}\u200b`, "invisible (zero-width)"],
    ["a byte order mark", `\ufeff${KEY}`, "invisible (zero-width)"],
    ["typographic quotes", `“${KEY}”`, "a typographic quote"],
    ["a space before it", ` ${KEY}`, "begins or ends with a space"],
    ["a space behind it", `${KEY}\u00a0`, "begins or ends with a space"],
  ])("an access key with %s is refused, without its value", (_, key, problem) => {
    const issues = refused({ key });
    expect(issues).toEqual([{ name: "LITESTREAM_ACCESS_KEY_ID", problem: expect.stringContaining(problem) }]);
    expect(JSON.stringify(issues)).not.toContain(KEY);
  });

  test.each([`${TOKEN}\u200b`, `‘${TOKEN}’`, ` ${TOKEN}`])("a secret may be like that: %s", (token) => {
    expect(create({ token }).token).toBe(token);
  });

  test.each([
    ["s3", "“s3://bkt/app”", "a typographic quote"],
    ["s3", "s3://bkt\u200b/app", "invisible"],
    ["endpoint", " https://host", "begins or ends with a space"],
    ["region", "‘auto’", "a typographic quote"],
    ["db", "app.db\u200b", "invisible"],
  ])("where %s is refused, it is said as well: %o", (field, value, problem) => {
    const [issue] = refused({ [field]: value });
    expect(issue?.problem).toContain(problem);
  });
});

describe("a folder that a shell would have to write out is refused, with the path that was meant", () => {
  const home = homedir();
  test.each([
    ["~/data", join(home, "data")],
    ["~", home],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a shell's
    ["${HOME}/data", join(home, "data")],
    ["$HOME/data", join(home, "data")],
  ])("%s", (folder, meant) => {
    const issue = { name: "DB_FOLDER", problem: expect.stringMatching(new RegExp(`, as ${meant}$`)) };
    expect(refused({ folder })).toEqual([issue]);
    expect(issuesOf(() => readFile(`DB_FOLDER=${folder}\n`, REQUIRED))).toEqual([issue]);
  });

  const others = ["DATA", "LITESTREAM_SECRET_ACCESS_KEY"].map((name) => `/srv/$\{${name}}/data`);
  test.each(["$DATA/app", ...others])("%s: another variable's value is not guessed", (folder) => {
    expect(refused({ folder })).toEqual([
      { name: "DB_FOLDER", problem: expect.stringMatching(/^must be written out: .* here$/) },
    ]);
  });

  test("a folder of that name, which was made before, is named", () => {
    const before = process.cwd();
    process.chdir(tempFolder());
    onTestFinished(() => process.chdir(before));
    mkdirSync("~/data", { recursive: true });
    const [issue] = refused({ folder: "~/data" });
    expect(issue?.problem).toContain(`what is in ${join(process.cwd(), "~/data")} from before`);
  });

  test.each(["/srv/~/data", "/srv/$HOME", "~backup", "data/a$b", "/srv/$(x)"])("%s is a name", (folder) => {
    expect(create({ folder }).folder).toMatch(/^\//);
  });

  test("a copy that is restored elsewhere is held to the same", async () => {
    const config = create({ folder: tempFolder() });
    await expect(config.restore({ to: "~/copy.sqlite" })).rejects.toThrow(/^`to` must be written out/);
  });
});

describe("the name of a database that does not pass: which part of it, and one that would", () => {
  const BEGIN = "must begin with a small letter, a to z";
  const END = "must end in .sqlite or .db";
  test.each([
    ["db.sqlite3", END, "db.sqlite"],
    ["production.sqlite3", END, "production.sqlite"],
    ["app.db3", END, "app.db"],
    ["app.DB", END, "app.db"],
    ["app.db-wal", END, "app.db"],
    ["Prod.db", BEGIN, "prod.db"],
    ["MyApp.sqlite", BEGIN, "myApp.sqlite"],
    ["1.db", BEGIN, "db1.db"],
    [".db", BEGIN, "db.db"],
    ["_x.db", BEGIN, "db_x.db"],
    ["äpp.db", BEGIN, "app.db"],
    ["Prod.sqlite3", `${BEGIN}, and end in .sqlite or .db`, "prod.sqlite"],
    [`A${"x".repeat(40)}.sqlite3`, `${BEGIN}, and end in .sqlite or .db`, `a${"x".repeat(40)}.sqlite`],
    [`1${"x".repeat(46)}.db`, BEGIN, `db1${"x".repeat(44)}.db`],
  ])("%s", (db, problem, passes) => {
    expect(refused({ db })).toEqual([{ name: "DB_SQLITE", problem: `${problem}: ${passes} would do` }]);
    expect(create({ db: passes }).db).toBe(passes);
  });

  test("what looks like no file's name may be a secret, and is not repeated", () => {
    expect(refused({ db: "app" })).toEqual([{ name: "DB_SQLITE", problem: `${END}, as db.sqlite does` }]);
  });
});
