import { execFile } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import {
  ConfigS3,
  LitestreamError,
  LitestreamNotFoundError,
  LitestreamUnsupportedError,
} from "../../src/index.ts";
import { findBinary, identifyBinary } from "../../src/litestream/binary.ts";
import { CutShort, withLimit } from "../../src/litestream/limit.ts";
import { processesWith } from "../support/processes.ts";
import { memoryLogger, tempFolder } from "../support/setup.ts";
import { COMMANDS, REPLICATE_HELP } from "./recorded.ts";

const PLATFORM_PACKAGE = `@flydotio/litestream-${process.platform}-${process.arch}`;
const NATIVE = createRequire(import.meta.url).resolve(`${PLATFORM_PACKAGE}/litestream`);
const SHIM = resolve("node_modules/.bin/litestream");

let folder: string;
beforeEach(() => {
  folder = tempFolder();
});

/** An executable file below the test's folder. */
function executable(path: string, content: string): string {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  chmodSync(file, 0o755);
  return file;
}

/** A litestream 0.5.10 in shell that runs `first` before it answers. */
function fakeLitestream(path: string, first = ""): string {
  return executable(
    path,
    `#!/bin/sh
${first}
case "$*" in
  version) echo 0.5.10 ;;
  "replicate -h") cat <<'END'
${REPLICATE_HELP["0.5.10"]}
END
  ;;
  *) cat <<'END'
${COMMANDS["0.5.17"]}
END
  exit 1 ;;
esac
`,
  );
}

function identify(file: string, signal: AbortSignal = new AbortController().signal) {
  const { logger } = memoryLogger();
  return identifyBinary(file, { env: { PATH: process.env.PATH }, signal, redact: (text) => text, logger });
}

function thrownBy(action: () => unknown): Error {
  try {
    action();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("it threw no error");
}

describe("which litestream is run", () => {
  const says = (name: string) => executable(`${name}/litestream`, `#!/bin/sh\necho ${name}`);

  /** The name that the litestream in use says. */
  async function inUse(options: { litestream?: string; bin?: string; path?: string; envFile?: string }) {
    const config = new ConfigS3(
      { key: "k", token: "t", s3: "s3://b/x.db" },
      {
        env: { PATH: `${options.path ?? ""}:/usr/bin:/bin`, LITESTREAM_BIN: options.bin },
        envFile: options.envFile ?? false,
        ...(options.litestream === undefined ? {} : { litestream: options.litestream }),
      },
    );
    const [stdout] = await config.getResultOnTimeout(["litestream", "version"], 30);
    return stdout.trim();
  }

  test("options.litestream comes before LITESTREAM_BIN and PATH", async () => {
    const choice = { litestream: says("option"), bin: says("bin"), path: dirname(says("path")) };
    expect(await inUse(choice)).toBe("option");
  });

  test("LITESTREAM_BIN comes before PATH", async () => {
    expect(await inUse({ bin: says("bin"), path: dirname(says("path")) })).toBe("bin");
    expect(await inUse({ litestream: "", bin: says("bin"), path: dirname(says("path")) })).toBe("bin");
  });

  test("LITESTREAM_BIN may stand in the env file, and an empty one counts as missing", async () => {
    const envFile = join(folder, ".env");
    writeFileSync(envFile, `LITESTREAM_BIN=${says("file")}\n`);
    expect(await inUse({ bin: "", envFile, path: dirname(says("path")) })).toBe("file");
  });

  test("PATH comes before the npm package", async () => {
    expect(await inUse({ path: dirname(says("path")) })).toBe("path");
  });

  test("the npm package's native file comes last", () => {
    expect(findBinary(undefined, { PATH: folder })).toBe(NATIVE);
    expect(findBinary(undefined, {})).toBe(NATIVE);
  });

  test("a name without a slash is looked for on PATH", () => {
    const file = executable("bin/litestream-next", "#!/bin/sh\n");
    expect(findBinary("litestream-next", { PATH: `/nowhere:${dirname(file)}` })).toBe(file);
  });

  test("a relative path starts in the working directory", () => {
    expect(findBinary("./package.json/../node_modules/.bin/litestream", {})).toBe(NATIVE);
  });

  test("what can't be run on PATH is passed over", () => {
    mkdirSync(join(folder, "a/litestream"), { recursive: true });
    mkdirSync(join(folder, "b"));
    writeFileSync(join(folder, "b/litestream"), "not executable");
    const file = says("c");
    expect(findBinary(undefined, { PATH: ["a", "b", "c"].map((name) => join(folder, name)).join(":") })).toBe(
      file,
    );
  });
});

describe("the shim of the npm package", () => {
  test("on PATH is replaced by the native file", () => {
    expect(findBinary(undefined, { PATH: dirname(SHIM) })).toBe(NATIVE);
  });

  test("asked for by path, or copied under another name, is replaced too", () => {
    expect(findBinary(SHIM, {})).toBe(NATIVE);
    expect(findBinary(realpathSync(SHIM), {})).toBe(NATIVE);
    symlinkSync(realpathSync(SHIM), join(folder, "ls"));
    expect(findBinary(join(folder, "ls"), {})).toBe(NATIVE);
  });

  /** The tree that pnpm makes: only the package itself sees its platform package. */
  function pnpmTree({ native }: { native: boolean }) {
    const store = "node_modules/.pnpm/@flydotio+litestream@1.0.1/node_modules";
    executable(`${store}/@flydotio/litestream/index.js`, "#!/usr/bin/env node\n");
    writeFileSync(
      join(folder, store, "@flydotio/litestream/package.json"),
      '{"name":"@flydotio/litestream"}',
    );
    const file = join(folder, store, PLATFORM_PACKAGE, "litestream");
    if (native) executable(`${store}/${PLATFORM_PACKAGE}/litestream`, "\x7fELF");
    mkdirSync(join(folder, "node_modules/@flydotio"));
    symlinkSync(
      join(folder, store, "@flydotio/litestream"),
      join(folder, "node_modules/@flydotio/litestream"),
    );
    const shim = executable(
      "node_modules/.bin/litestream",
      `#!/bin/sh
basedir=$(dirname "$(echo "$0" | sed -e 's,\\\\,/,g')")

case \`uname\` in
    *CYGWIN*|*MINGW*|*MSYS*)
        if command -v cygpath > /dev/null 2>&1; then
            basedir=\`cygpath -w "$basedir"\`
        fi
    ;;
esac

if [ -z "$NODE_PATH" ]; then
  export NODE_PATH="${folder}/${store}/@flydotio/litestream/node_modules:${folder}/${store}"
else
  export NODE_PATH="${folder}/${store}/@flydotio/litestream/node_modules:${folder}/${store}:$NODE_PATH"
fi
if [ -x "$basedir/node" ]; then
  exec "$basedir/node"  "$basedir/../@flydotio/litestream/index.js" "$@"
else
  exec node  "$basedir/../@flydotio/litestream/index.js" "$@"
fi
`,
    );
    return { shim, native: realpathSync(folder) + file.slice(folder.length) };
  }

  test("pnpm's shell script around it is replaced by the native file", () => {
    const { shim, native } = pnpmTree({ native: true });
    expect(findBinary(undefined, { PATH: dirname(shim) })).toBe(native);
    expect(findBinary(shim, {})).toBe(native);
  });

  test("without its platform package is an error that says what to do", () => {
    const { shim } = pnpmTree({ native: false });
    const error = thrownBy(() => findBinary(undefined, { PATH: dirname(shim) }));
    expect(error).toBeInstanceOf(LitestreamNotFoundError);
    expect(error.message).toContain(`${shim} is the shim of @flydotio/litestream`);
    expect(error.message).toContain(`${process.platform}-${process.arch} is not installed`);
    expect(error.message).toContain("with optional dependencies");
  });

  test("somebody's own script that calls the native file stays", () => {
    const file = executable("bin/litestream", `#!/bin/sh\nexec nice ${NATIVE} "$@"\n`);
    expect(findBinary(file, {})).toBe(file);
  });
});

describe("a litestream that is not there", () => {
  const INSTALL =
    "Install litestream (https://litestream.io/install, or `npm install @flydotio/litestream`), " +
    "or name the executable in LITESTREAM_BIN.";

  test.each([
    ["missing", "does not exist", () => {}],
    ["below a file", "does not exist", (file: string) => writeFileSync(dirname(file), "")],
    ["a folder", "is not a file", (file: string) => mkdirSync(file, { recursive: true })],
    [
      "not executable",
      "is not executable",
      (file: string) => {
        mkdirSync(dirname(file));
        writeFileSync(file, "#!/bin/sh\n", { mode: 0o644 });
      },
    ],
  ])("asked for by path, %s: the error has the path and what to do", (_, problem, make) => {
    const file = join(folder, "sub/litestream");
    make(file);
    const error = thrownBy(() => findBinary(file, { PATH: dirname(SHIM) }));
    expect(error).toBeInstanceOf(LitestreamNotFoundError);
    expect(error).toMatchObject({
      code: "LITESTREAM_NOT_FOUND",
      message: `No litestream: ${file} ${problem}. ${INSTALL}`,
    });
  });

  test("asked for by name: the error has the name, and what is on PATH otherwise does not help", () => {
    const error = thrownBy(() => findBinary("litestream-next", { PATH: dirname(SHIM) }));
    expect(error).toBeInstanceOf(LitestreamNotFoundError);
    expect(error.message).toBe(`No litestream: there is no \`litestream-next\` on PATH. ${INSTALL}`);
  });

  test("anywhere: restore and timedReplicate say what to install", async () => {
    // The built library in a tree of its own, whose node_modules has no litestream.
    cpSync("dist", join(folder, "dist"), { recursive: true });
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    mkdirSync(join(folder, "node_modules"));
    for (const name of ["dotenv", "execa", "pino", "zod"]) {
      symlinkSync(resolve("node_modules", name), join(folder, "node_modules", name));
    }
    const script = `
      import { ConfigS3 } from ${JSON.stringify(pathToFileURL(join(folder, "dist/index.js")).href)};
      const settings = { key: "k", token: "t", s3: "s3://b/x.db", folder: "data" };
      const config = new ConfigS3(settings, { envFile: false, env: { PATH: "/nowhere", LOG_LEVEL: "silent" } });
      for (const call of [() => config.restore(), () => config.timedReplicate(5)]) {
        await call().catch(({ name, code, message }) => console.log(JSON.stringify({ name, code, message })));
      }`;
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ["--input-type=module", "--eval", script],
      { cwd: folder, env: {} },
    );
    const error = {
      name: "LitestreamNotFoundError",
      code: "LITESTREAM_NOT_FOUND",
      message: `No litestream was found on PATH or in node_modules. ${INSTALL}`,
    };
    expect(stdout.trim().split("\n").map(parse)).toEqual([error, error]);
  });
});

describe("what the file is", () => {
  test("the npm package's litestream tells its version", async () => {
    expect(await identify(NATIVE)).toMatchObject({ file: NATIVE, version: "0.3.13" });
  });

  test("a script that answers as litestream does is taken for one", async () => {
    const file = fakeLitestream("litestream");
    expect(await identify(file)).toMatchObject({ file, version: "0.5.10" });
  });

  test.each([
    ["a script that says something else", "#!/bin/sh\necho v1.0.0\n"],
    ["a script that says nothing", "#!/bin/sh\n"],
    ["a script that names litestream in an error", "#!/bin/sh\necho litestream: not found >&2; exit 127\n"],
  ])("%s is not litestream", async (_, content) => {
    const file = executable("litestream", content);
    const error = await identify(file).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LitestreamUnsupportedError);
    expect(error).toMatchObject({
      code: "LITESTREAM_UNSUPPORTED",
      message: expect.stringContaining(`${file} is not litestream`),
    });
  });

  test("a script whose interpreter is missing could not be started", async () => {
    const file = executable("litestream", "#!/no/such/interpreter\n");
    const error = await identify(file).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LitestreamNotFoundError);
    expect(error).toMatchObject({
      message: expect.stringContaining(`${file} could not be started (ENOENT)`),
    });
  });

  // The system's C library hands what the kernel does not know to /bin/sh, or refuses it.
  test.each([
    ["text without a first line for an interpreter", "just a text\n"],
    ["an empty file", ""],
    ["the ruins of an executable", `\x7fELF\x02\x01\x01${"\0".repeat(57)}`],
  ])("%s: the error names the file and what to do", async (_, content) => {
    const file = executable("litestream", content);
    const error = await identify(file).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(LitestreamError);
    expect(error).toMatchObject({
      code: expect.stringMatching(/^LITESTREAM_(?:UNSUPPORTED|NOT_FOUND)$/),
      message: expect.stringMatching(
        new RegExp(`^${file} (?:is not litestream|could not be started).*LITESTREAM_BIN\\.$`),
      ),
    });
  });

  test("a file that hangs is ended when the signal fires, with all it started", async () => {
    const began = join(folder, "began");
    const file = executable(
      "litestream",
      `#!/bin/sh\necho x >> ${began}\n/bin/sh -c 'sleep 300; :' ${folder}\n`,
    );
    const controller = new AbortController();
    const asked = identify(file, controller.signal).catch((reason: unknown) => reason);
    await expect.poll(() => existsSync(began) && processesWith(folder).length).toBeGreaterThan(0);
    controller.abort(new Error("enough"));
    expect(await asked).toMatchObject({ message: "enough" });
    await expect.poll(() => processesWith(folder)).toEqual([]);
  });

  describe("is asked once", () => {
    let file: string;
    let asked: string;
    const questions = () => readFileSync(asked, "utf8").trim().split("\n").sort();
    const ONCE = ["<>", "<replicate -h>", "<version>"];
    beforeEach(() => {
      asked = join(folder, "asked");
      file = fakeLitestream("litestream", `printf '<%s>\\n' "$*" >> ${asked}`);
    });

    test("a process and file, also by calls at the same time", async () => {
      const all = await Promise.all([identify(file), identify(file), identify(file)]);
      expect(all.map(({ version }) => version)).toEqual(["0.5.10", "0.5.10", "0.5.10"]);
      await identify(file);
      expect(questions()).toEqual(ONCE);
    });

    test("under whatever name it is called", async () => {
      symlinkSync(file, join(folder, "ls"));
      await identify(file);
      expect(await identify(join(folder, "ls"))).toMatchObject({ version: "0.5.10" });
      expect(questions()).toEqual(ONCE);
    });

    test("and again when the file has changed", async () => {
      await identify(file);
      appendFileSync(file, "# another release\n");
      await identify(file);
      expect(questions()).toEqual([...ONCE, ...ONCE].sort());
    });
  });

  test("one that is newer than any that was tried says so once, by number", async () => {
    const file = fakeLitestream("litestream", '[ "$*" = version ] && { echo v0.5.117; exit; }');
    const { logger, lines } = memoryLogger();
    const env = { PATH: process.env.PATH };
    const options = { env, signal: new AbortController().signal, redact: (text: string) => text, logger };
    await identifyBinary(file, options);
    expect(await identifyBinary(file, options)).toMatchObject({ version: "0.5.117" });
    const told = {
      level: 30,
      litestream: "0.5.117",
      msg: expect.stringMatching(/^litestream 0\.5\.117 is newer/),
    };
    expect(lines.filter(({ level }) => level >= 30)).toEqual([expect.objectContaining(told)]);
  });

  test("what was not litestream is asked again", async () => {
    const file = executable("litestream", `#!/bin/sh\n[ -e ${folder}/mended ] && exec ${NATIVE} "$@"\n`);
    await expect(identify(file)).rejects.toThrow(LitestreamUnsupportedError);
    writeFileSync(join(folder, "mended"), "");
    expect(await identify(file)).toMatchObject({ version: "0.3.13" });
  });

  test("a call whose time is up leaves the question to the others", async () => {
    const began = join(folder, "began");
    const ready = join(folder, "ready");
    const file = fakeLitestream("litestream", `echo x >> ${began}; [ -e ${ready} ] || exec sleep 300`);
    const caller = new AbortController();
    onTestFinished(() => caller.abort());
    const first = withLimit(undefined, caller.signal, (signal) => identify(file, signal));
    const second = identify(file);
    await expect.poll(() => existsSync(began) && readFileSync(began, "utf8")).toBe("x\nx\nx\n");
    writeFileSync(ready, "");
    caller.abort();
    await expect(first).rejects.toThrow(CutShort);
    expect(await second).toMatchObject({ version: "0.5.10" });
  });
});

function parse(line: string): unknown {
  return JSON.parse(line);
}

test("a call that joins another's question keeps its own deadline", async () => {
  const log = memoryLogger();
  const gate = join(folder, "gate");
  const file = fakeLitestream("slow", `while [ ! -e ${gate} ]; do sleep 0.02; done`);
  const ask = (seconds: number) =>
    withLimit(seconds, undefined, (signal) =>
      identifyBinary(file, { env: process.env, signal, redact: (text) => text, logger: log.logger }),
    );
  const first = ask(30);
  await expect(ask(0.05)).rejects.toBeInstanceOf(CutShort);
  writeFileSync(gate, "");
  expect((await first).version).toBe("0.5.10");
});
