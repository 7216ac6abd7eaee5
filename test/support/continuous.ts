import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import type { ConfigS3 } from "../../src/index.ts";
import { LITESTREAM } from "./litestream.ts";

/** The ids of the processes, except this one, that have a file open below the folder; and what they are. */
export function holdersOf(folder: string): { pid: number; line: string }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        return files.some((file) => file.startsWith(`${folder}/`)) ? [{ pid: Number(pid), line }] : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
}

/** The id of the litestream that replicates the database in this folder. */
export function litestreamOf(folder: string): number {
  const [found, ...more] = holdersOf(folder).filter(({ line }) => / replicate /.test(line));
  if (found === undefined || more.length > 0)
    throw new Error(`not one litestream: ${JSON.stringify(holdersOf(folder))}`);
  return found.pid;
}

/** Resolves when it is so; the test's own limit ends the wait. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await new Promise((done) => setTimeout(done, 50));
}

/** Replicates in this process until the test has finished; what its callbacks hear, in order. */
export async function startHeard(config: ConfigS3) {
  const heard: string[] = [];
  const replication = await config.replicate({
    startTimeoutSeconds: 50,
    onFailing: (message) => heard.push(message),
    onRecovered: () => heard.push("recovered"),
  });
  onTestFinished(async () => void (await config.delete()));
  return { replication, heard };
}

/** An app in a process of its own, once it replicates. */
export async function startContinuousApp(config: ConfigS3) {
  const { key, token, s3, folder, db } = config;
  const call = JSON.stringify({ settings: { key, token, s3, folder, db }, litestream: LITESTREAM });
  const script = new URL("./continuous-app.mjs", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, call], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { PATH: process.env.PATH, LOG_LEVEL: "silent" },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = once(child, "exit");
  const events = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await events.next()).value ?? "{}");
  const ready = await next();
  if (ready.replicating !== true) throw new Error("the app does not replicate");
  return {
    /** Commits so many rows; resolves to how many there are. */
    write: async (n: number): Promise<number> => {
      child.stdin.write(`write ${n}\n`);
      return (await next()).rows;
    },
    exit: async () => {
      child.stdin.write("exit\n");
      await ended;
    },
    /** Nothing more to do: it ends by itself. */
    idle: async () => {
      child.stdin.end();
      await ended;
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
