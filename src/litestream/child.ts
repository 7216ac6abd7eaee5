import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";
import type { Socket } from "node:net";
import { PassThrough, type Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { LitestreamError } from "../errors.ts";
import { unlessThrown } from "../known-files.ts";
import type { Logger, Redact } from "../logger.ts";
import type { Environment } from "../settings.ts";
import { unlessCut } from "./limit.ts";

/** A longer line is cut; of one that is more than twice as long, the rest is read and dropped. */
const MAX_LINE = 8192;
/** So many of the last lines stay for error messages. */
const MAX_LINES = 50;
/** What two processes with their pipes take, and some more. */
const DESCRIPTORS = 24;
/** How long the last output may take to arrive after the exit, and an exit after SIGKILL. */
const SETTLE_MS = 100;

/** What a litestream child may inherit from the app; not LOG_LEVEL and not the app's own AWS identity. */
const INHERITED =
  /^(?:PATH|HOME|TMPDIR|TZ|SSL_CERT_FILE|SSL_CERT_DIR|(?:HTTPS?|NO|ALL)_PROXY|AWS_(?:DEFAULT_)?REGION|AWS_ENDPOINT_URL(?:_S3)?|GOMAXPROCS|GOMEMLIMIT)$/i;

/**
 * The environment of a litestream child. Both pairs of names carry the credentials: litestream takes LITESTREAM_* only
 * where AWS_* is unset.
 */
export function litestreamEnvironment(app: Environment, key: string, token: string): Environment {
  const inherited = Object.entries(app).filter(([name]) => INHERITED.test(name));
  return {
    // litestream 0.5.17 fails at once where AWS_CA_BUNDLE is set; Go reads SSL_CERT_FILE.
    ...(app.AWS_CA_BUNDLE ? { SSL_CERT_FILE: app.AWS_CA_BUNDLE } : {}),
    ...Object.fromEntries(inherited),
    LITESTREAM_ACCESS_KEY_ID: key,
    LITESTREAM_SECRET_ACCESS_KEY: token,
    AWS_ACCESS_KEY_ID: key,
    AWS_SECRET_ACCESS_KEY: token,
  };
}

export interface ChildOptions {
  /** The whole environment of the child; nothing is inherited. */
  readonly env: Environment;
  /** Kills the child's process group with SIGKILL when it fires. */
  readonly signal: AbortSignal;
  readonly redact: Redact;
  readonly logger: Logger;
  /** The file that is its stdin, as a descriptor. Default: none. */
  readonly stdin?: number;
  /** Gets each line as it was printed. */
  readonly onLine?: (line: string) => void;
  /** Keeps so many characters from the end of each stream for `stdout` and `stderr`. Default: none. */
  readonly capture?: number;
}

export interface ChildEnd {
  /** `undefined` when a signal ended it, or when it never started. */
  readonly exitCode: number | undefined;
  /** Node's code when it could not be started, e.g. `ENOENT`. */
  readonly startError: string | undefined;
  /** The last lines of both streams, without secrets. */
  readonly lines: readonly string[];
  /** What `capture` kept, as written. */
  readonly stdout: string;
  readonly stderr: string;
}

export interface Child {
  /** Resolves with the first line from now on that matches, or `undefined` when the child ends without one. */
  line(pattern: RegExp): Promise<string | undefined>;
  /** Asks it to stop. */
  stop(signal: "SIGINT"): void;
  /** Ends it and everything it started, now. */
  kill(): void;
  /** Resolves once it has ended and its output is read; never rejects. */
  readonly ended: Promise<ChildEnd>;
}

/**
 * The only place where a process is started. The child leads a session and process group of its own, so that a
 * terminal's Ctrl-C does not reach it, and everything it starts ends with it.
 */
export function startChild(file: string, args: readonly string[], options: ChildOptions): Child {
  const { env, signal, redact, logger, stdin, onLine: listener, capture = 0 } = options;
  const lines: string[] = [];
  const waiting = new Set<{ pattern: RegExp; found: (line: string | undefined) => void }>();
  const captured = { stdout: tail(capture), stderr: tail(capture) };
  let over = false;

  const onLine = (raw: string, shown: string) => {
    // Redacted first: a cut may go through a secret.
    const line = shown.slice(0, MAX_LINE);
    logger.debug({ line }, "litestream");
    listener?.(raw);
    lines.push(line);
    if (lines.length > 2 * MAX_LINES) lines.splice(0, MAX_LINES);
    for (const waiter of waiting) {
      if (!waiter.pattern.test(raw)) continue;
      waiting.delete(waiter);
      waiter.found(line);
    }
  };
  const onLines = redacted(redact, onLine);

  assertDescriptors();
  const mark = randomUUID();
  const lifeline = startLifeline(mark);
  const child = execa(file, args, {
    env: { ...env, [MARK]: mark },
    extendEnv: false,
    detached: true,
    stdin: (stdin as 3) ?? "ignore", // execa hands on any, but its types end at 9
    stdout: "pipe",
    stderr: "pipe",
    buffer: false,
    reject: false,
  });
  lifeline.guard(child.pid);

  const send = (name: "SIGINT" | "SIGKILL") => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, name);
    } catch {
      // It has just ended.
    }
  };
  const kill = () => send("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  if (signal.aborted) kill();

  const readers = (["stdout", "stderr"] as const).map((name) =>
    readLines(child[name], onLines, captured[name].add),
  );

  const ended = (async (): Promise<ChildEnd> => {
    // Not execa's own promise: it also waits for pipes that a grandchild may hold open.
    const exited: Promise<unknown> = child.pid === undefined ? Promise.resolve() : once(child, "exit");
    await unlessCut(exited, signal);
    if (signal.aborted) await Promise.race([exited, settled()]);
    await Promise.race([Promise.all(readers), settled()]);
    signal.removeEventListener("abort", kill);
    lifeline.release();
    child.stdout.destroy();
    child.stderr.destroy();
    const startError = child.pid === undefined ? ((await child).code ?? "unknown error") : undefined;
    over = true;
    for (const waiter of waiting) waiter.found(undefined);
    return {
      exitCode: child.exitCode ?? undefined,
      startError,
      lines: lines.slice(-MAX_LINES),
      stdout: captured.stdout.text(),
      stderr: captured.stderr.text(),
    };
  })();

  return {
    line: (pattern) => new Promise((found) => (over ? found(undefined) : waiting.add({ pattern, found }))),
    stop: (name) => send(name),
    kill,
    ended,
  };
}

/** How a child that runs for the life of the app is started. */
export interface SupervisedOptions extends Pick<ChildOptions, "env" | "redact" | "logger"> {
  /** The file that is its stdin, as a descriptor. */
  readonly stdin: number;
  /**
   * The file that is its stdout and stderr, opened to append: no pipe, whose end would take the child with it, before its last
   * synchronisation, where the app is killed. It is read and kept short, and closed at the end.
   */
  readonly log: number;
  /** A descriptor that the child keeps open for as long as it lives. */
  readonly keep: number | undefined;
  /** Called before each look at the log: the lines to come were printed after the call before this. */
  readonly onLook: () => void;
  /** Gets each line as it was printed, and as it may be shown. */
  readonly onLine: (line: string, shown: string) => void;
}

export interface Supervised {
  /**
   * Ends it: what it finds at its descriptor 3 ends, as it does where the app is killed. After so many milliseconds it is
   * killed, and everything it started; with 0, at once, without a last synchronisation.
   */
  end(withinMs: number): Promise<void>;
  /** Resolves once it has ended and its output is read; `how` in words. Never rejects. */
  readonly ended: Promise<{ how: string; startError: string | undefined }>;
}

/** How often a log is looked at, and how long it may become, in bytes. */
const FOLLOW_MS = 100;
const MAX_LOG = 1024 * 1024;

/**
 * Starts a child that outlives this process by what it does when its descriptor 3 ends. In a session of its own as every
 * child; it keeps this process from ending as little as a timer that is unref'd.
 */
export function startSupervised(
  file: string,
  args: readonly string[],
  options: SupervisedOptions,
): Supervised {
  const { env, redact, logger, stdin, log, keep } = options;
  assertDescriptors();
  const stdio = [stdin, log, log, "pipe", ...(keep === undefined ? [] : [keep])];
  const child = execa(file, args, {
    env,
    extendEnv: false,
    detached: true,
    stdio: stdio as [3, 3, 3, "pipe"],
    buffer: false,
    reject: false,
  });
  const alive = child.stdio[3] as unknown as Socket;
  alive.on("error", () => {});
  alive.unref();
  child.unref();

  const text = new PassThrough();
  const read = readLines(
    text,
    redacted(redact, (line, shown) => {
      logger.debug({ line: shown.slice(0, MAX_LINE) }, "litestream");
      options.onLine(line, shown.slice(0, MAX_LINE));
    }),
    () => {},
  );
  const buffer = Buffer.alloc(64 * 1024);
  let position = 0;
  const readOn = () => {
    options.onLook();
    for (let bytes = -1; bytes !== 0; position += bytes) {
      bytes = readSync(log, buffer, 0, buffer.length, position);
      text.write(Buffer.from(buffer.subarray(0, bytes)));
    }
    // What is appended between the look and the cut is lost: a line or two of a million.
    if (position < MAX_LOG || fstatSync(log).size !== position) return;
    ftruncateSync(log, 0);
    position = 0;
  };
  // A disk that fails must not end the app.
  const follow = () => unlessThrown(readOn);
  const timer = setInterval(follow, FOLLOW_MS).unref();

  const exited: Promise<unknown> = child.pid === undefined ? Promise.resolve() : once(child, "exit");
  const ended = exited.then(async () => {
    // What it has started, and its group with it, may be there yet.
    killGroup(child.pid);
    clearInterval(timer);
    follow();
    text.end();
    await read;
    closeSync(log);
    alive.destroy();
    const startError = child.pid === undefined ? ((await child).code ?? "unknown error") : undefined;
    const how = child.signalCode === null ? `exit code ${child.exitCode}` : child.signalCode;
    return { how, startError };
  });
  return {
    ended,
    end: async (withinMs) => {
      if (withinMs === 0) killGroup(child.pid);
      alive.destroy();
      const late = setTimeout(() => killGroup(child.pid), withinMs);
      await ended;
      clearTimeout(late);
    },
  };
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** Lines, as they are and without secrets, from what `readLines` gives. */
function redacted(redact: Redact, onLine: (line: string, shown: string) => void) {
  return (text: string, cut: boolean) => {
    // All at once, which no newline in a secret forbids: line by line, a talkative child takes minutes.
    const shown = redact(text, cut);
    const raw = text.split("\n");
    const lines = shown === text ? raw : shown.split("\n");
    for (let i = 0; i < raw.length; i += 1) onLine(withoutReturn(raw[i]), withoutReturn(lines[i]));
  };
}

/**
 * Without free file descriptors Node's spawn fails in ways that can't all be caught.
 * @throws LitestreamError with code `TOO_MANY_OPEN_FILES`
 */
function assertDescriptors(): void {
  const fds: number[] = [];
  try {
    for (let i = 0; i < DESCRIPTORS; i += 1) fds.push(openSync("/dev/null", "r"));
  } catch (error) {
    throw new LitestreamError(
      "TOO_MANY_OPEN_FILES",
      "litestream could not be started: this process has too many open files. Close some, or raise `ulimit -n`.",
      { cause: error },
    );
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** The most that is waited for what should come at once: a process that even SIGKILL does not end must not hold up the answer. */
async function settled(): Promise<void> {
  await sleep(SETTLE_MS, undefined, { ref: false });
  // A busy event loop may run the timer before it looks at its pipes; an immediate comes after.
  await setImmediate();
}

/**
 * Reads the stream to its end, in bounded memory.
 * @param onLines gets one or more lines, joined by newlines; `cut` where it is one that is too long, and goes on
 */
async function readLines(
  stream: Readable,
  onLines: (text: string, cut: boolean) => void,
  onText: (text: string) => void,
): Promise<void> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  let skipping = false;
  stream.on("data", (chunk: Buffer) => {
    let text = decoder.write(chunk);
    onText(text);
    if (skipping) {
      const next = text.indexOf("\n") + 1;
      if (next === 0) return;
      text = text.slice(next);
      skipping = false;
    }
    const end = text.lastIndexOf("\n");
    if (end >= 0) {
      onLines(rest + text.slice(0, end), false);
      rest = "";
    }
    rest += text.slice(end + 1);
    if (rest.length > 2 * MAX_LINE) {
      onLines(rest, true);
      rest = "";
      skipping = true;
    }
  });
  await new Promise<void>((done) => stream.once("close", done).once("error", () => done()));
  if (rest !== "") onLines(rest, false);
}

/** Keeps so many characters of the end of what is added. */
function tail(limit: number) {
  let before = "";
  let now = "";
  return {
    add: (text: string) => {
      if (limit === 0) return;
      if (now.length >= limit) [before, now] = [now, ""];
      now += text;
    },
    text: () => (limit === 0 ? "" : (before + now).slice(-limit)),
  };
}

function withoutReturn(line = ""): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}

interface Lifeline {
  guard(pid: number | undefined): void;
  release(): void;
}

/** The variable by which the lifeline knows a child whose pid it was not told. */
const MARK = "LITESTREAM_S3_LIFELINE";

/**
 * A shell that kills the child's process group when this process is gone without a word (SIGKILL, out of memory):
 * the pipe to it then ends. Started first, so that nothing but its pid is to be told once the child runs. Where this
 * process is killed even before that, the shell looks for the mark in the children's environment, for as long as a
 * process may take from fork to exec.
 */
function startLifeline(mark: string): Lifeline {
  const script = `trap "" HUP INT TERM
exec 2>/dev/null
if read -r pid; then read -r over || kill -9 "-$pid"; exit; fi
for again in 1 2 3 4 5; do
  for file in $(grep -l "${MARK}=${mark}" /proc/[0-9]*/environ); do
    pid=\${file#/proc/}
    kill -9 "-\${pid%/environ}"
  done
  sleep 0.1
done`;
  const shell = execa("/bin/sh", ["-c", script], {
    env: {},
    extendEnv: false,
    detached: true,
    stdin: "pipe",
    stdout: "ignore",
    stderr: "ignore",
    buffer: false,
    reject: false, // without a shell (distroless images) there is no lifeline
  });
  shell.stdin.on("error", () => {});
  return {
    guard: (pid) => {
      if (pid !== undefined) shell.stdin.write(`${pid}\n`);
    },
    release: () => {
      if (shell.stdin.writable) shell.stdin.end("\n");
    },
  };
}
