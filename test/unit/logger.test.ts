import { execFile } from "node:child_process";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { redactor } from "../../src/logger.ts";
import { tempFolder } from "../support/setup.ts";

describe("redactor", () => {
  const KEY = "AKID+TEST/TEST";
  const TOKEN = "tOkEn/tEsT+tOkEn?tEsT>=";
  const redact = redactor([KEY, TOKEN]);

  const bytes = (text: string) => Buffer.from(text);
  test.each<[string, (secret: string) => string]>([
    ["as it is", (secret) => secret],
    ["URL-encoded", encodeURIComponent],
    ["in base64", (secret) => bytes(secret).toString("base64")],
    ["in base64url", (secret) => bytes(secret).toString("base64url")],
  ])("hides every secret %s, wherever and however often it stands", (_, encode) => {
    const [key, token] = [encode(KEY), encode(TOKEN)];
    expect(redact(`${key}: ${token}, again ${token}${key}.`)).toBe(
      "[redacted]: [redacted], again [redacted][redacted].",
    );
  });

  test("the forms differ: each is hidden for itself", () => {
    const forms = [
      TOKEN,
      encodeURIComponent(TOKEN),
      bytes(TOKEN).toString("base64"),
      bytes(TOKEN).toString("base64url"),
    ];
    expect(new Set(forms).size).toBe(4);
  });

  test("leaves other text alone", () => {
    expect(redact("AKID TEST tOkEn")).toBe("AKID TEST tOkEn");
    expect(redact("")).toBe("");
  });

  test.each([
    ["first", ["AKID", "AKIDsecret"]],
    ["last", ["AKIDsecret", "AKID"]],
  ])("hides the whole of a secret that has another one in it, the shorter %s", (_, secrets) => {
    expect(redactor(secrets)("AKIDsecret AKID")).toBe("[redacted] [redacted]");
  });

  test("takes the characters of a pattern for themselves", () => {
    const hide = redactor([".*", "a+b(c", "$&"]);
    expect(hide("abc aab(c .* a+b(c $&")).toBe("abc aab(c [redacted] [redacted] [redacted]");
  });

  test.each([
    ["as JSON and Go escape it", 'a"b\\c/d e', 'a\\"b\\\\c/d e'],
    ["in hexadecimal", "sEcRet", "734563526574"],
    ["with small letters in the escapes", "a/b", "a%2fb"],
    ["with + for a space", "a b", "a+b"],
    ["read in the wrong encoding", "AKé", "AK\u00c3\u00a9"],
  ])("hides a secret %s", (_, secret, shown) => {
    expect(redactor([secret])(`<${shown}>`)).toBe("<[redacted]>");
  });

  test("hides the pair as basic authorisation has it", () => {
    expect(redactor(["key", "token"])(`Basic ${btoa("key:token")}`)).toBe("Basic [redacted]");
  });

  test("leaves no beginning of a secret at the end of a text that is cut", () => {
    const hide = redactor([TOKEN]);
    const forms = [
      TOKEN,
      encodeURIComponent(TOKEN),
      bytes(TOKEN).toString("base64"),
      bytes(TOKEN).toString("hex"),
    ];
    for (const form of forms) {
      for (let length = 1; length < form.length; length += 1) {
        expect(hide(".".repeat(200) + form.slice(0, length), true)).toMatch(/^\.+$/);
      }
    }
    expect(redact("short", true)).toBe("");
  });

  test("an empty secret hides nothing", () => {
    expect(redactor([""])("text")).toBe("text");
    expect(redactor([""])("text", true)).toBe("text");
  });
});

describe("the default logger", () => {
  const LIBRARY = pathToFileURL(resolve("dist/index.js")).href;

  /** What an app that gives no logger prints, with one event at debug, info and warn each. */
  async function printed(level: string | undefined) {
    const folder = tempFolder();
    const script = `
      import { writeFileSync } from "node:fs";
      import { ConfigS3 } from ${JSON.stringify(LIBRARY)};
      const settings = { key: "AKIDsHoWn", token: "tOkEnsHoWn", s3: "s3://x/x.db", folder: ${JSON.stringify(folder)} };
      const config = new ConfigS3(settings, { envFile: false });
      await config.getResultOnTimeout(["/bin/sh", "-c", "echo at debug level: $0", "tOkEnsHoWn"], 30);
      const to = config.dbpath + ".copy.db";
      writeFileSync(to, "x");
      await config.restore({ ifDbNotExists: true, to });
      await config.delete();
      process.stdout.write("the app's own");`;
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ["--input-type=module", "--eval", script],
      { env: { PATH: process.env.PATH, ...(level === undefined ? {} : { LOG_LEVEL: level }) } },
    );
    const lines = stderr
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    return { stdout, stderr, lines, folder };
  }

  test.each([
    ["not set", undefined, [30, 40]],
    ["empty", "", [30, 40]],
    ["info", "info", [30, 40]],
    ["none of pino's", "verbose", [30, 40]],
    ["a name that every object has", "constructor", [30, 40]],
    ["debug", "debug", [20, 30, 40]],
    ["in capital letters", "WARN", [40]],
    ["silent", "silent", []],
  ])("writes to stderr alone; LOG_LEVEL is %s", async (_, level, levels) => {
    const { stdout, lines } = await printed(level);
    expect(lines.map((line) => line.level)).toEqual(levels);
    expect(stdout).toBe("the app's own");
  });

  test("a full disk behind stderr does not end the app", async () => {
    const script = `
      import { ConfigS3 } from ${JSON.stringify(LIBRARY)};
      const settings = { key: "k-e-y", token: "t-o-k-e-n", s3: "s3://x/x.db", folder: ${JSON.stringify(tempFolder())} };
      await new ConfigS3(settings, { envFile: false }).delete();
      await new Promise((done) => setTimeout(done, 50));
      process.stdout.write("alive");`;
    const args = ["-c", 'exec "$0" --input-type=module --eval "$1" 2>/dev/full', process.execPath, script];
    expect((await promisify(execFile)("/bin/sh", args)).stdout).toBe("alive");
  });

  test("says who it is, and no secret", async () => {
    const { lines, stderr, folder } = await printed("trace");
    expect(lines[0]).toMatchObject({ name: "litestream-s3", line: "at debug level: [redacted]" });
    expect(lines[2]).toMatchObject({ dbpath: join(folder, "db.sqlite"), msg: "deleting the local database" });
    expect(stderr).not.toMatch(/AKIDsHoWn|tOkEnsHoWn/);
  });
});
