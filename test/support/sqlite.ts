import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import Database from "libsql";
import { onTestFinished } from "vitest";

export interface WriterOptions {
  /** Default: wal. */
  journal?: "wal" | "delete";
  /** How many rows to commit first, one by one. */
  rows?: number;
  /** How many random bytes each row has. */
  bytes?: number;
  /** What to do after them. Default: close. */
  after?: "close" | "kill" | "hold" | "read" | "write";
  /** For `write`: how long to go on; default until stopped. */
  forMs?: number;
  everyMs?: number;
}

export interface Writer {
  /** The number of rows whose commit has been acknowledged. */
  readonly acked: number;
  readonly pid: number | undefined;
  /** Lets it come to its end. */
  finish(): Promise<void>;
}

/** A real SQLite writer in a process of its own; resolves when it has done what `rows` and `after` say. */
export async function startWriter(dbpath: string, options: WriterOptions): Promise<Writer> {
  const script = new URL("./writer.mjs", import.meta.url).pathname;
  const child: ChildProcess = spawn(process.execPath, [script, dbpath, JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  let acked = 0;
  let ready = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  if (child.stdout === null || child.stdin === null) throw new Error("the writer has no pipes");
  const { stdin } = child;
  createInterface({ input: child.stdout }).on("line", (line) => {
    const event: { acked?: number; reading?: boolean } = JSON.parse(line);
    acked = event.acked ?? acked;
    if (options.after === "read" ? event.reading : options.after === "hold" || options.after === "write") {
      ready();
    }
  });
  const closed = once(child, "close");
  await Promise.race([isReady, closed]);
  if (child.exitCode !== null && child.exitCode !== 0) {
    throw new Error(`the writer ended with exit code ${child.exitCode}`);
  }
  return {
    get acked() {
      return acked;
    },
    pid: child.pid,
    finish: async () => {
      stdin.end();
      await exited;
      await closed;
    },
  };
}

/** For `last-moment.mjs`: a writer that opens the database just before its removal. */
export function lateWriter(dbpath: string, options: WriterOptions): { LATE: string; LATE_LOG: string } {
  const script = new URL("./writer.mjs", import.meta.url).pathname;
  const log = join(mkdtempSync(join(tmpdir(), "litestream-s3-late-")), "log");
  onTestFinished(() => rmSync(dirname(log), { recursive: true, force: true }));
  return { LATE: JSON.stringify([script, dbpath, JSON.stringify(options)]), LATE_LOG: log };
}

/** Writes the rows in a process of its own, which ends. */
export async function writeRows(
  dbpath: string,
  rows: number,
  options: Omit<WriterOptions, "rows"> = {},
): Promise<void> {
  await startWriter(dbpath, { ...options, rows });
}

/** How many rows a database that nobody else uses holds; throws where it is damaged or has gaps. */
export function rowsIn(dbpath: string): number {
  const db = new Database(dbpath);
  try {
    const [check] = db.prepare("PRAGMA integrity_check").raw().all() as [string][];
    if (check?.[0] !== "ok") throw new Error(`integrity_check of ${dbpath}: ${check?.[0]}`);
    const { n, top } = db.prepare("SELECT count(*) AS n, coalesce(max(id), 0) AS top FROM t").get() as {
      n: number;
      top: number;
    };
    if (n !== top) throw new Error(`${dbpath} has ${n} rows, but the newest is ${top}`);
    return n;
  } finally {
    db.close();
  }
}

/** What a row of a database that nobody else uses holds. */
export function bodyOf(dbpath: string, id: number): unknown {
  const db = new Database(dbpath);
  try {
    return (db.prepare("SELECT body FROM t WHERE id = ?").get(id) as { body: unknown } | undefined)?.body;
  } finally {
    db.close();
  }
}
