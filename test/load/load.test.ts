import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { ConfigS3 } from "../../src/index.ts";
import { LITESTREAM } from "../support/litestream.ts";
import { replicaUrl, type S3, startS3 } from "../support/s3.ts";
import { setUp } from "../support/setup.ts";

const NO_DISK_STORE = process.env.VERSITYGW_BIN
  ? undefined
  : "1 GB needs versitygw (VERSITYGW_BIN): fauxqs keeps everything in memory";

let s3: S3 | undefined;
beforeAll(async () => {
  if (NO_DISK_STORE === undefined) s3 = await startS3();
});
afterAll(() => s3?.stop());

const file = (name: string) => new URL(`../support/${name}`, import.meta.url).pathname;

/** Makes the database, or reads all of it: how many rows, and the checksum of all. */
async function bigDatabase(action: "make" | "sum", dbpath: string): Promise<string> {
  const run = promisify(execFile)(process.execPath, [file("big-database.mjs"), action, dbpath]);
  // It ends by a signal of its own once it has made the database.
  const { stdout } = await run.catch((error) => {
    if (action === "make" && error.signal === "SIGKILL") return error as { stdout: string };
    throw error;
  });
  return stdout;
}

/** The longest stand-still in some tenth of a second, and how long the process lacked a core in it. */
interface Stall {
  readonly from: number;
  readonly to: number;
  readonly longestMs: number;
  readonly waitedForCoreMs: number;
}

/** A process that watches its event loop. */
function startLoop() {
  const child = fork(file("loop-app.mjs"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const answer = async () => {
    const [message] = await Promise.race([
      once(child, "message"),
      once(child, "exit").then(([code]) => {
        throw new Error(`the app has ended with exit code ${code}`);
      }),
    ]);
    return message as { value: unknown; stalls: Stall[] };
  };
  return { order: (order: object) => child.send(order), answer };
}

type Loop = ReturnType<typeof startLoop>;

/**
 * Makes the call in the app while the other process does nothing. What held that one up at the same moment, or was a wait
 * for a core, is the machine's: the rest is the library's.
 */
async function watched(app: Loop, idle: Loop, config: ConfigS3, method: string, args: unknown[]) {
  const { key, token, s3, folder, db } = config;
  idle.order({ idle: true });
  await idle.answer(); // ready
  const start = performance.now();
  app.order({ settings: { key, token, s3, folder, db }, litestream: LITESTREAM, method, args });
  await app.answer(); // ready
  const { value, stalls } = await app.answer();
  const seconds = (performance.now() - start) / 1000;
  idle.order({ stop: true });
  const control = await idle.answer();
  const longest = (of: readonly Stall[]) => Math.max(0, ...of.map(({ longestMs }) => longestMs));
  const ownMs = stalls.map(({ from, to, longestMs, waitedForCoreMs }) => {
    const meanwhile = control.stalls.filter((other) => other.to >= from && other.from <= to);
    return longestMs - Math.max(waitedForCoreMs, longest(meanwhile));
  });
  const worstMs = Math.max(...ownMs);
  console.log(
    `${method}: ${seconds.toFixed(1)} s; the event loop stood still for ${longest(stalls).toFixed(1)} ms at most, an idle ` +
      `process's for ${longest(control.stalls).toFixed(1)} ms; ${worstMs.toFixed(1)} ms at most are not the machine's`,
  );
  return { value, worstMs };
}

test("1 GB with 200 MB in the -wal goes up and comes back whole, and never holds up the event loop for 50 ms", async ({
  skip,
}) => {
  skip(s3 === undefined, NO_DISK_STORE);
  const { config, files } = setUp(replicaUrl(s3?.port ?? 0, "load/big.db"));
  const made = await bigDatabase("make", config.dbpath);
  expect(statSync(config.dbpath).size).toBeGreaterThan(1e9);
  expect(statSync(`${config.dbpath}-wal`).size).toBeGreaterThan(200e6);

  const [app, idle] = [startLoop(), startLoop()];
  const up = await watched(app, idle, config, "replicateOnce", [{ timeoutSeconds: 300 }]);
  expect(up.value).toMatchObject({ ok: true });
  expect(files()).toEqual([]);
  const down = await watched(app, idle, config, "restore", [{ timeoutSeconds: 300 }]);
  expect(down.value).toBe(config.dbpath);
  expect(await bigDatabase("sum", config.dbpath)).toBe(made);
  expect(up.worstMs).toBeLessThan(50);
  expect(down.worstMs).toBeLessThan(50);
});
