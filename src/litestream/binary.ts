import { accessSync, closeSync, constants, openSync, readSync, realpathSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { arch, platform } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { LitestreamNotFoundError, LitestreamUnsupportedError, messageOf } from "../errors.ts";
import type { Logger, Redact } from "../logger.ts";
import type { Environment } from "../settings.ts";
import { type ChildEnd, type ChildOptions, startChild } from "./child.ts";
import { type Dialect, identify, isUntried, NEWEST_TRIED, QUESTIONS, type Replica } from "./dialect.ts";
import { CutShort, unlessCut, withLimit } from "./limit.ts";

/** A litestream that can be run, and what it is. */
export interface Litestream {
  readonly file: string;
  /** e.g. `0.5.17`, or `0.3 (development build)` for one built by `go install` */
  readonly version: string;
  readonly dialect: Dialect;
}

const INSTALL =
  "Install litestream (https://litestream.io/install, or `npm install @flydotio/litestream`), " +
  "or name the executable in LITESTREAM_BIN.";
const NPM_PACKAGE = "@flydotio/litestream";
/** What a call works on. */
export interface Job extends Replica {
  /** The file to run, as `findBinary` gives it. */
  readonly binary: string;
  /** The child's environment, with the credentials. */
  readonly env: Environment;
  readonly redact: Redact;
  readonly logger: Logger;
  /** What looks wrong with the settings, as sentences, for when the store refuses them. */
  readonly hints?: readonly string[];
}

/** How long a binary may take to say what it is. */
const IDENTIFY_SECONDS = 5;

/**
 * The file to run: the one that is asked for, else `litestream` on PATH, else the npm package's. Never the package's
 * Node shim: its exit code is always 0, and a signal orphans the litestream behind it.
 * @param wanted a path, or a name to look for on PATH
 * @throws LitestreamNotFoundError
 */
export function findBinary(wanted: string | undefined, env: Environment): string {
  if (wanted !== undefined) {
    const file = wanted.includes("/") ? resolve(wanted) : onPath(wanted, env);
    if (file === undefined) {
      throw new LitestreamNotFoundError(`No litestream: there is no \`${wanted}\` on PATH. ${INSTALL}`);
    }
    const problem = whyNotExecutable(file);
    if (problem !== undefined)
      throw new LitestreamNotFoundError(`No litestream: ${file} ${problem}. ${INSTALL}`);
    return behindShim(file);
  }
  const found = onPath("litestream", env);
  if (found !== undefined) return behindShim(found);
  const native = nativeFile(join(process.cwd(), "package.json")) ?? nativeFile(import.meta.url);
  if (native !== undefined) return native;
  throw new LitestreamNotFoundError(`No litestream was found on PATH or in node_modules. ${INSTALL}`);
}

function onPath(name: string, env: Environment): string | undefined {
  const folders = (env.PATH ?? "").split(delimiter).filter(Boolean);
  return folders.map((folder) => resolve(folder, name)).find((file) => whyNotExecutable(file) === undefined);
}

function whyNotExecutable(file: string): string | undefined {
  try {
    if (!statSync(file).isFile()) return "is not a file";
    accessSync(file, constants.X_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES" ? "is not executable" : "does not exist";
  }
}

/** The native file where this is the npm package's shim (also pnpm's shell script around it), else the file itself. */
function behindShim(file: string): string {
  const real = realpathSync(file);
  const text = beginningOf(real);
  if (!text.startsWith("#!")) return file;
  // Not every script that names the package: somebody's wrapper may well call the native file.
  if (!real.includes(`/${NPM_PACKAGE}/`) && !text.includes(`${NPM_PACKAGE}/index.js`)) return file;
  const native = nativeFile(real);
  if (native !== undefined) return native;
  throw new LitestreamNotFoundError(
    `${file} is the shim of ${NPM_PACKAGE}, but its litestream for ${platform()}-${arch()} is not installed. ` +
      `Install ${NPM_PACKAGE} again, with optional dependencies.`,
  );
}

/** Empty where the file can be executed, but not read: then it is no script. */
function beginningOf(file: string): string {
  try {
    const fd = openSync(file, "r");
    try {
      const head = Buffer.alloc(4096);
      return head.toString("latin1", 0, readSync(fd, head));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EACCES") return "";
    throw new LitestreamNotFoundError(`${file} can't be read: ${messageOf(error)}. ${INSTALL}`, {
      cause: error,
    });
  }
}

/** The litestream inside the npm package, as seen from a file; `undefined` where it is not installed. */
function nativeFile(from: string): string | undefined {
  const inside = `${NPM_PACKAGE}-${platform()}-${arch()}/litestream`;
  const resolveFrom = (base: string, id: string) => {
    try {
      return createRequire(base).resolve(id);
    } catch {
      return undefined;
    }
  };
  // pnpm lets only the package itself see its platform packages.
  const owner = resolveFrom(from, `${NPM_PACKAGE}/package.json`);
  const file = resolveFrom(from, inside) ?? (owner && resolveFrom(owner, inside));
  return file !== undefined && whyNotExecutable(file) === undefined ? file : undefined;
}

const identified = new Map<string, Promise<Litestream>>();

/**
 * Finds out what the binary is and can do, once a process and file.
 * @throws LitestreamUnsupportedError when it is not litestream
 * @throws LitestreamNotFoundError when the system can't run it
 */
export async function identifyBinary(file: string, options: ChildOptions): Promise<Litestream> {
  const { mtimeMs, size, ino } = statSync(file);
  const id = [realpathSync(file), mtimeMs, size, ino].join(":");
  for (;;) {
    const known = identified.get(id) ?? askBinary(file, options);
    known.catch(() => {}); // a call that is cut short does not wait for it
    identified.set(id, known);
    try {
      const litestream = await unlessCut(known, options.signal);
      if (litestream === undefined) throw options.signal.reason;
      return litestream;
    } catch (error) {
      if (identified.get(id) === known && !options.signal.aborted) identified.delete(id);
      // Another call's deadline is none of ours.
      if (!(error instanceof CutShort) || options.signal.aborted) throw error;
    }
  }
}

async function askBinary(file: string, options: ChildOptions): Promise<Litestream> {
  return await withLimit(IDENTIFY_SECONDS, options.signal, async (signal) => {
    const ask = (args: readonly string[]) =>
      startChild(file, args, { ...options, signal, capture: 65_536 }).ended;
    const ends = await Promise.all([
      ask(QUESTIONS.version),
      ask(QUESTIONS.commands),
      ask(QUESTIONS.replicateHelp),
    ]);
    if (options.signal.aborted) throw options.signal.reason;
    const [version, commands, replicateHelp] = ends.map(({ stdout, stderr }) => stdout + stderr) as [
      string,
      string,
      string,
    ];
    const startError = ends.find((end: ChildEnd) => end.startError !== undefined)?.startError;
    if (startError !== undefined) {
      throw new LitestreamNotFoundError(
        `${file} could not be started (${startError}): is it a litestream for ${platform()}-${arch()}? ${INSTALL}`,
      );
    }
    // One that was killed has said only a part of it.
    const complete = ends.every(({ exitCode }) => exitCode !== undefined);
    const known = complete ? identify({ version, commands, replicateHelp }) : undefined;
    if (known !== undefined) {
      // A log from the field then tells.
      if (isUntried(known.version)) {
        options.logger.info(
          { litestream: known.version, file },
          `litestream ${known.version} is newer than any that this library was tried with, which is ${NEWEST_TRIED}`,
        );
      }
      return { file, ...known };
    }
    const silent = signal.reason instanceof CutShort ? ` within ${IDENTIFY_SECONDS} s` : "";
    throw new LitestreamUnsupportedError(
      `${file} is not litestream: \`litestream version\` and \`litestream\` did not answer as litestream does${silent}. ${INSTALL}`,
    );
  });
}
