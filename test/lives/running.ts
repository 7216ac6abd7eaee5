import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { processesWith } from "../support/processes.ts";
import type { Life } from "./history.ts";
import type { Stretch } from "./model.ts";
import type { Spelling } from "./places.ts";

const script = new URL("./process.mjs", import.meta.url).pathname;
const stepKiller = new URL("../support/step-killer.mjs", import.meta.url).pathname;

export interface Outcome {
  value?: unknown;
  error?: { name: string; code: string; reason?: string; message: string };
}
/** What a process of a life says. */
export interface Events {
  boot?: Outcome;
  content?: Stretch[];
  synced?: Outcome;
  wrote?: unknown;
  replicating?: Outcome;
  startOvertimeMs?: number;
  settled?: { heard: string[]; restarts: number };
  result?: Outcome;
  others?: Outcome[];
  overtimeMs?: number;
  /** In milliseconds of a clock that all processes share: just before it closes the database, and when it had its answer. */
  closingAt?: number;
  answeredAt?: number;
}

/** What a process of a life is to do. */
export interface Spec extends Record<string, unknown> {
  killStep?: Life["killStep"];
  folder?: string;
  port?: number;
  path?: string;
  spelling?: Spelling | undefined;
}

/** A process that has the database open, and can be ended. */
export interface Companion {
  readonly ended: Promise<unknown>;
  kill(signal: NodeJS.Signals): boolean;
}

/** A process of a life, and what it has said so far. */
export class Running {
  readonly events: Events = {};
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  ended_: { code: number | null } | undefined;
  /** How it was killed, for the report. */
  killed: string | undefined;
  stderr = "";
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, () => void>();

  constructor(spec: unknown, killAt: string | undefined) {
    const imports = killAt === undefined ? [] : ["--import", stepKiller];
    // Not in the arguments, where no secret may be.
    const env = {
      PATH: process.env.PATH,
      LOG_LEVEL: "trace",
      SPEC: JSON.stringify(spec),
      ...(killAt && { KILL_AT: killAt }),
    };
    this.#child = spawn(process.execPath, ["--expose-gc", ...imports, script], {
      stdio: ["pipe", "pipe", "pipe"],
      env,
    });
    const { stdin, stdout, stderr } = this.#child;
    if (stdin === null || stdout === null || stderr === null) throw new Error("the process has no pipes");
    stdin.on("error", () => {});
    stderr.on("data", (chunk) => {
      this.stderr = (this.stderr + chunk).slice(-1_000_000);
    });
    createInterface({ input: stdout }).on("line", (line) => {
      const event: Record<string, unknown> = JSON.parse(line);
      Object.assign(this.events, event);
      for (const name of Object.keys(event)) this.#waiting.get(name)?.();
    });
    this.ended = once(this.#child, "close").then(() => {
      const { exitCode: code, signalCode: signal } = this.#child;
      this.ended_ = { code };
      for (const wake of this.#waiting.values()) wake();
      return { code, signal };
    });
  }

  /** Resolves when it has said so, or has ended. */
  async until(name: string): Promise<void> {
    if (name in this.events || this.ended_ !== undefined) return;
    await new Promise<void>((wake) => this.#waiting.set(name, wake));
  }

  async ready(): Promise<this> {
    await this.until("ready");
    return this;
  }

  order(word: string): void {
    this.#child.stdin?.write(`${word}\n`);
  }

  kill(signal: NodeJS.Signals): boolean {
    return this.#child.kill(signal);
  }
}

/** Sends the signal to each process that names the folder; how many were still there. */
export function signalAll(folder: string, signal: NodeJS.Signals): number {
  return processesWith(folder).filter((line) => {
    try {
      return process.kill(Number.parseInt(line, 10), signal);
    } catch {
      return false; // it has just ended
    }
  }).length;
}
