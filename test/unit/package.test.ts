import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import * as library from "../../src/index.ts";

const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));

/** Every source file with its text, e.g. `litestream/child.ts`. */
const SOURCES = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => ({ name, text: readFileSync(join("src", name), "utf8") }));

const filesWith = (pattern: RegExp) =>
  SOURCES.filter(({ text }) => pattern.test(text))
    .map(({ name }) => name)
    .sort();

describe("what is public", () => {
  const VALUES = [
    "ConfigError",
    "ConfigS3",
    "DatabaseExistsError",
    "DatabaseNotFoundError",
    "FileSystemError",
    "InvalidOptionError",
    "LitestreamError",
    "LitestreamNotFoundError",
    "LitestreamUnsupportedError",
    "ReplicationError",
    "RestoreError",
  ];
  const TYPES = [
    "ConfigIssue",
    "ConfigOptions",
    "ContinuousOptions",
    "FailureReason",
    "Logger",
    "ReplicateFailure",
    "ReplicateOptions",
    "ReplicateResult",
    "Replication",
    "ReplicationStatus",
    "RestoreOptions",
    "SettingsInput",
    "ShutdownOptions",
    "StopOptions",
  ];

  test("are these values", () => {
    expect(Object.keys(library).sort()).toEqual(VALUES);
  });

  test("are these types besides, and index.ts does nothing but re-export", () => {
    const index = readFileSync("src/index.ts", "utf8");
    const exports = [...index.matchAll(/export (type )?\{([^}]*)\} from "\.\/[\w/-]+\.ts";\n/g)];
    expect(exports.map(([statement]) => statement).join("")).toBe(index);
    const names = exports.flatMap(([, type = "", list = ""]) =>
      list
        .split(",")
        .filter((name) => name.trim() !== "")
        .map((name) => type + name.trim()),
    );
    const types = names.flatMap((name) => /^type (.*)$/.exec(name)?.[1] ?? []);
    expect(types.sort()).toEqual(TYPES);
    expect(names.filter((name) => !name.startsWith("type ")).sort()).toEqual(VALUES);
  });

  test("every error is a LitestreamError under its own name", () => {
    const errors = Object.entries(library).filter(([name]) => name.endsWith("Error"));
    for (const [name, Class] of errors) {
      const { LitestreamError } = library;
      expect(Class === LitestreamError || Class.prototype instanceof LitestreamError, name).toBe(true);
      expect(Class.name).toBe(name);
    }
  });
});

describe("dependencies", () => {
  test("at run time are dotenv, execa, pino and zod", () => {
    expect(Object.keys(json("package.json").dependencies)).toEqual(["dotenv", "execa", "pino", "zod"]);
    expect(json("package.json").optionalDependencies).toBeUndefined();
  });

  test.each(["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"])(
    "the lockfile has litestream for %s, as npm leaves it out in silence",
    (platform) => {
      const [os, cpu] = platform.split("-");
      const { packages } = json("package-lock.json");
      const { version } = packages["node_modules/@flydotio/litestream"];
      const entry = packages[`node_modules/@flydotio/litestream-${platform}`];
      expect(entry).toMatchObject({ version, os: [os], cpu: [cpu], optional: true });
    },
  );

  test("the lockfile names no registry", () => {
    const { packages } = json("package-lock.json");
    const resolved = Object.entries<{ resolved?: string }>(packages).filter(([, { resolved }]) => resolved);
    expect(resolved).toEqual([]);
    expect(Object.keys(packages).length).toBeGreaterThan(50);
  });
});

describe("who may know what", () => {
  const imports = (name: string) => new RegExp(`(?:from|import|require)\\s*\\(?\\s*["']${name}["'/]`);

  test.each([
    ["execa", ["litestream/child.ts"]],
    ["zod", ["settings-schema.ts"]],
    ["dotenv", ["env-file.ts"]],
    ["pino", ["logger.ts"]],
    ["(?:node:)?child_process", []],
  ])("%s is imported by %j alone", (name, files) => {
    expect(filesWith(imports(name))).toEqual(files);
  });

  test.each([
    "snapshot written",
    "one-shot",
    "no matching backup",
    "level=INFO",
    "-if-replica-exists",
    "-once",
  ])("what litestream says or takes is known to dialect.ts and complaint.ts alone: %s", (words) => {
    const knowing = filesWith(new RegExp(words)).filter((file) => file !== "litestream/complaint.ts");
    expect(knowing).toEqual(["litestream/dialect.ts"]);
  });

  test("nothing writes to the console or to stdout", () => {
    expect(filesWith(/\bconsole\.|process\.stdout/)).toEqual([]);
  });
});

test("tools that don't read `exports` find the same build and types", () => {
  const { main, types, exports } = json("package.json");
  expect({ types, default: main }).toEqual(exports["."]);
});

test("the three links lead to one repository, whose owner is filled in before the first release", () => {
  const { homepage, bugs, repository } = json("package.json");
  const [, owner] = /^git\+https:\/\/github\.com\/([\w-]+)\/litestream-s3\.git$/.exec(repository?.url) ?? [];
  expect(owner).toBeDefined();
  expect([homepage, bugs?.url]).toEqual(
    ["#readme", "/issues"].map((end) => `https://github.com/${owner}/litestream-s3${end}`),
  );
});

test("the package holds the build, its sources and its documents, and no test", async () => {
  const { stdout } = await promisify(execFile)("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"]);
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  const documents = ["README.md", "LICENSE", ".env.example", "package.json"];
  const missing = ["dist/index.js", "dist/index.d.ts", ...documents].filter((path) => !paths.includes(path));
  expect(missing).toEqual([]);
  // Source maps lead to the sources.
  expect(paths.filter((path) => path.startsWith("src/")).sort()).toEqual(
    SOURCES.map(({ name }) => `src/${name}`).sort(),
  );
  const strays = paths.filter((path) => !/^(?:dist|src)\//.test(path) && !documents.includes(path));
  expect(strays).toEqual([]);
});
