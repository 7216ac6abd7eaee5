import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import pino from "pino";
import { onTestFinished } from "vitest";
import { type ConfigOptions, ConfigS3, type SettingsInput } from "../../src/index.ts";
import { LITESTREAM } from "./litestream.ts";
import { KEY, TOKEN } from "./s3.ts";

/** What the library knows of the replica, beside `db.sqlite`. */
export const RECORD = ".db.sqlite-litestream-s3";

/** A folder of its own that goes with the test; `hook` where it is made in a hook. */
export function tempFolder(at: "test" | "hook" = "test"): string {
  const folder = mkdtempSync(join(tmpdir(), "litestream-s3-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  if (at === "test") onTestFinished(remove);
  else process.once("exit", remove);
  return folder;
}

interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A pino logger at trace level, and what it has written. */
export function memoryLogger() {
  const lines: LogLine[] = [];
  const logger = pino({ level: "trace", base: null }, { write: (line) => lines.push(JSON.parse(line)) });
  return { logger, lines, at: (level: number) => lines.filter((line) => line.level === level) };
}

/** Whether the database is proven, and another process has it open. */
export const waitsForOthers = (log: ReturnType<typeof memoryLogger>) =>
  log.at(30).some(({ msg }) => msg.includes("waiting for who else has the database open"));

/** A configuration in a folder of its own, on the litestream under test, with its log in memory. */
export function setUp(s3: string, settings: Partial<SettingsInput> = {}, options: ConfigOptions = {}) {
  const log = memoryLogger();
  const config = new ConfigS3(
    { key: KEY, token: TOKEN, s3, folder: settings.folder ?? tempFolder(), ...settings },
    {
      envFile: false,
      env: { PATH: process.env.PATH },
      litestream: LITESTREAM,
      logger: log.logger,
      ...options,
    },
  );
  return { config, log, files: () => readdirSync(config.folder).sort() };
}

/**
 * Runs the call and says by how much it outlasted its deadline, in ms, less the longest time that this process's own
 * event loop was held up meanwhile: a busy machine is not the library's fault.
 */
export async function overtimeOf<T>(seconds: number, call: () => Promise<T>) {
  const delays = monitorEventLoopDelay({ resolution: 5 });
  delays.enable();
  const start = performance.now();
  const result = await call();
  const ms = performance.now() - start;
  delays.disable();
  return { result, overtimeMs: ms - seconds * 1000 - delays.max / 1e6 };
}
