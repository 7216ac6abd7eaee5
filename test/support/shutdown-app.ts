import { spawn } from "node:child_process";
import { once } from "node:events";
import { onTestFinished } from "vitest";
import type { ConfigS3 } from "../../src/index.ts";
import { LITESTREAM } from "./litestream.ts";

/** One call of `onShutdown`. */
interface Hook {
  timeoutSeconds: number;
  keepLocal?: boolean;
  /** Which database; default: the first. */
  database?: number;
  close?: "all" | "throws" | "hangs" | "blocks" | "removes" | "late";
  /** For how long it `blocks`. */
  ms?: number;
}

interface Plan {
  /** Default: 20 rows are written to each; `undefined` rows: there is no database. */
  databases: { config: ConfigS3; rows?: number | undefined; litestream?: string }[];
  hooks: Hook[];
  /** Which hooks are removed again. */
  remove?: number[];
  /** Whether there is another handler of SIGTERM. */
  other?: boolean;
  /** The app's own `process.exitCode`. */
  exitCode?: number;
  /** Whether it is signalled in its `restore()`. */
  restore?: boolean;
}

interface LogLine {
  level: number;
  msg: string;
  [field: string]: unknown;
}

/** Starts the app; resolves when it is ready. */
export async function startHookedApp({ databases, ...plan }: Plan) {
  const json = JSON.stringify({
    ...plan,
    databases: databases.map(({ config, litestream = LITESTREAM, ...rest }) => {
      const { key, token, s3, folder, db } = config;
      return { settings: { key, token, s3, folder, db }, litestream, rows: "rows" in rest ? rest.rows : 20 };
    }),
  });
  const script = new URL("./shutdown-app.mjs", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, json], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [events, log] = [child.stdout, child.stderr].map(jsonLines);
  if (events === undefined || log === undefined) throw new Error("no streams");
  const ended = once(child, "close").then(() => ({ code: child.exitCode, signal: child.signalCode }));
  const ready = await events.next(({ ready }) => ready === true);
  return {
    listeners: ready.listeners,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /** Resolves with the next event that has the name, or with one that has come already. */
    event: (name: string) => events.next((event) => name in event),
    /** The same for a line of the log. */
    logged: (pattern: RegExp) => log.next(({ msg }) => pattern.test(String(msg))),
    lines: log.lines as LogLine[],
    ended,
  };
}

/** The lines of a stream; one that is no JSON is the `msg` of its own. */
export function jsonLines(stream: NodeJS.ReadableStream) {
  const lines: Record<string, unknown>[] = [];
  const waiting = new Set<() => void>();
  let rest = "";
  stream.on("data", (chunk) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts.map((line) => (line.startsWith("{") ? JSON.parse(line) : { msg: line })));
    for (const look of waiting) look();
  });
  return {
    lines,
    next: (matches: (line: Record<string, unknown>) => boolean) =>
      new Promise<Record<string, unknown>>((found) => {
        const look = () => {
          const line = lines.find(matches);
          if (line === undefined) return;
          waiting.delete(look);
          found(line);
        };
        waiting.add(look);
        look();
      }),
  };
}
