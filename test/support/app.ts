import { spawn } from "node:child_process";
import { once } from "node:events";
import type { ConfigS3 } from "../../src/index.ts";
import { LITESTREAM } from "./litestream.ts";

export interface AppCall {
  config: ConfigS3;
  method: "restore" | "timedReplicate" | "delete" | "replicateOnce";
  args?: unknown[];
  litestream?: string;
  /** Modules for `node --import`. */
  imports?: string[];
  env?: Record<string, string>;
}

/** The argument of `app.mjs` that has it make the call. */
export function callOf({ config, method, args = [], litestream = LITESTREAM }: AppCall): string {
  const { key, token, s3, folder, db } = config;
  return JSON.stringify({ settings: { key, token, s3, folder, db }, litestream, method, args });
}

/** An app in a process of its own that makes one call on the built library. */
export function startApp({ imports = [], env = {}, ...call }: AppCall) {
  const file = (name: string) => new URL(name, import.meta.url).pathname;
  const options = [...imports.flatMap((name) => ["--import", file(name)]), file("./app.mjs"), callOf(call)];
  const child = spawn(process.execPath, options, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, ...env },
  });
  const output = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk) => {
    output.stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    output.stderr += chunk;
  });
  return {
    kill: () => child.kill("SIGKILL"),
    /** What came of the call; `undefined` where the app was killed before. */
    ended: once(child, "close").then(() => ({
      signal: child.signalCode,
      outcome: output.stdout === "" ? undefined : JSON.parse(output.stdout),
      stderr: output.stderr,
    })),
  };
}
