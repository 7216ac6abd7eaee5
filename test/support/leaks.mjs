// An app in a process of its own: `node --expose-gc leaks.mjs PLAN-AS-JSON` makes calls on the built library, some side
// by side, and prints JSON lines: what this process holds before the first call, what came of each, and what it holds
// after the last one, again and again until its stdin ends.
import { createHook } from "node:async_hooks";
import { getEventListeners } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { ConfigS3 } from "../../dist/index.js";

const { runs, atOnce, secrets, sample, folder, litestream, kinds } = JSON.parse(process.argv[2]);

// Timers that don't keep the process alive are in no list of Node's; children and pipes that are closed, but still
// referred to, neither.
const alive = new Map();
createHook({
  init: (id, type) => /^(?:Timeout|Immediate|PROCESSWRAP|PIPEWRAP)$/.test(type) && alive.set(id, type),
  destroy: (id) => alive.delete(id),
}).enable();

const longLived = new AbortController();

function count(names) {
  const counts = {};
  for (const name of [...names].sort()) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

function fds() {
  return readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).replace(/\[\d+\]$/, "");
    } catch {
      return "the list itself"; // closed since
    }
  });
}

function children() {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const ppid = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
      return Number(ppid) === process.pid ? [stat.split(" ")[1]] : [];
    } catch {
      return []; // no process, or one that has ended meanwhile
    }
  });
}

async function held() {
  await new Promise((done) => setTimeout(done, 100));
  globalThis.gc();
  return {
    fds: count(fds()),
    resources: count(process.getActiveResourcesInfo()),
    alive: count(alive.values()),
    listeners: count(process.eventNames().flatMap((name) => process.listeners(name).map(() => String(name)))),
    abortListeners: getEventListeners(longLived.signal, "abort").length,
    children: children(),
  };
}

async function run(number, kind) {
  const { method, args = [], s3, database, signal } = kind;
  const own = mkdtempSync(join(folder, "run-"));
  const files = database ? readdirSync(sample).filter((name) => name.startsWith("db.sqlite")) : [];
  for (const name of files) copyFileSync(join(sample, name), join(own, name));
  const config = new ConfigS3(
    { ...secrets, s3: s3.replace("NUMBER", String(number)), folder: own },
    {
      envFile: false,
      litestream: kind.litestream ?? litestream,
      env: { PATH: process.env.PATH, LOG_LEVEL: "silent" },
    },
  );
  const options = args.at(-1);
  if (signal === "long-lived") options.signal = longLived.signal;
  if (signal === "aborted") options.signal = AbortSignal.abort();
  if (signal === "aborts") {
    const abort = new AbortController();
    options.signal = abort.signal;
    setTimeout(() => abort.abort(), 300);
  }
  return await config[method](...args).then(
    (value) => value?.reason ?? value?.ok ?? (typeof value === "string" ? "path" : value),
    (error) => error.reason ?? error.code ?? String(error),
  );
}

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
mkdirSync(folder, { recursive: true });
process.stdin.once("end", () => process.exit()).resume();

const before = await held();
let next = 0;
const outcomes = {};
await Promise.all(
  Array.from({ length: atOnce }, async () => {
    while (next < runs) {
      const number = next++;
      const { name, ...kind } = structuredClone(kinds[number % kinds.length]);
      const outcome = await run(number, kind);
      outcomes[name] = [...(outcomes[name] ?? []), JSON.stringify(outcome) ?? "nothing"];
    }
  }),
);
for (const [name, all] of Object.entries(outcomes))
  outcomes[name] = { times: all.length, what: [...new Set(all)] };
say({ before, outcomes });
for (;;) say({ after: await held() });
