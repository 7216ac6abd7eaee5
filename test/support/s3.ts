import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { startFauxqs } from "fauxqs";
import { startFaultProxy } from "./fault-proxy.ts";

const BUCKET = "backups";
export const KEY = "AKIDTESTTESTTEST";
export const TOKEN = "tOkEn/tEsT+tOkEn/tEsT+tOkEn=";

export interface S3 {
  readonly port: number;
  /** Whether it refuses a wrong secret. */
  readonly checksSignatures: boolean;
  /** The objects below a path. */
  keys(path: string): Promise<string[]>;
  /** Takes away an object, as a lifecycle rule of the bucket does. */
  expire(key: string): Promise<void>;
  stop(): Promise<void>;
}

/** The URL of a path in the bucket; another port is a proxy in front of the store. */
export function replicaUrl(port: number, path: string, bucket: string = BUCKET): string {
  return `s3://${bucket}.localhost:${port}/${path}`;
}

/** A real S3 server on a free port: versitygw where VERSITYGW_BIN names it, else fauxqs in this process. */
export async function startS3(): Promise<S3> {
  return process.env.VERSITYGW_BIN ? await startVersitygw(process.env.VERSITYGW_BIN) : await startInProcess();
}

async function startInProcess(): Promise<S3> {
  const server = await startFauxqs({ port: 0, host: "127.0.0.1", logger: false });
  server.createBucket(BUCKET);
  const front = await startFaultProxy(server.port, { plainParts: true });
  return {
    port: front.port,
    checksSignatures: false,
    keys: async (path) => {
      const listing = await fetch(`http://127.0.0.1:${server.port}/${BUCKET}?list-type=2&prefix=${path}/`);
      return [...(await listing.text()).matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key]) => key ?? "").sort();
    },
    expire: async (key) => {
      const { ok } = await fetch(`http://127.0.0.1:${server.port}/${BUCKET}/${key}`, { method: "DELETE" });
      if (!ok) throw new Error(`${key} could not be deleted`);
    },
    stop: async () => {
      await front.stop();
      await server.stop();
    },
  };
}

async function startVersitygw(file: string): Promise<S3> {
  const root = mkdtempSync(join(tmpdir(), "versitygw-"));
  const port = await freePort();
  const data = join(root, "data");
  const side = join(root, "side");
  mkdirSync(join(data, BUCKET), { recursive: true });
  mkdirSync(side);
  const args = ["--access", KEY, "--secret", TOKEN, "--port", `127.0.0.1:${port}`];
  const child: ChildProcess = spawn(file, [...args, "posix", "--sidecar", side, data], { stdio: "ignore" });
  const onExit = () => child.kill("SIGKILL");
  process.once("exit", onExit);
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error(`${file} ended with exit code ${child.exitCode}`);
    await new Promise((done) => setTimeout(done, 20));
  }
  return {
    port,
    checksSignatures: true,
    keys: async (path) => {
      const folder = join(data, BUCKET, path);
      const entries = existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }) : [];
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => relative(join(data, BUCKET), join(entry.parentPath, entry.name)))
        .sort();
    },
    expire: async (key) => rmSync(join(data, BUCKET, key)),
    stop: async () => {
      process.off("exit", onExit);
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
      rmSync(root, { recursive: true, force: true });
    },
  };
}

async function answers(port: number): Promise<boolean> {
  return await fetch(`http://127.0.0.1:${port}/`).then(
    () => true,
    () => false,
  );
}

/** A port nobody listens on, at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
