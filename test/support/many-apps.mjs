// One app with many databases: `node many-apps.mjs LITESTREAM LIMIT FREE` opens files until only so many of its file
// descriptors are free (`ulimit -n` alone can't go so low: Node opens the modules of zod all at once). It reads batches from
// stdin, one JSON line each: [{settings, method, args}…]. It makes a batch's calls at the same time on the built library,
// and prints one line with what came of them, and the most litestreams and file descriptors that it had at a time.
import { subscribe } from "node:diagnostics_channel";
import { openSync, readdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigS3 } from "../../dist/index.js";

const [, , litestream, limit, free] = process.argv;
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const peak = { children: 0, descriptors: 0 };
const children = new Set();

// One of them is the listing's own.
const descriptors = () => readdirSync("/proc/self/fd").length - 1;

// Every process that Node starts is announced here: none is too short to be seen.
subscribe("child_process", ({ process: child }) => {
  child.once("exit", () => children.delete(child));
  child.once("spawn", () => {
    if (child.spawnfile !== litestream) return; // the shell that ends a litestream with the app
    if (child.exitCode === null && child.signalCode === null) children.add(child);
    peak.children = Math.max(peak.children, children.size);
    peak.descriptors = Math.max(peak.descriptors, descriptors());
  });
});

const call = ({ settings, method, args }) =>
  new ConfigS3(settings, { envFile: false, litestream, logger: silent })[method](...args).then(
    (value) => ({ value }),
    ({ code, reason, message }) => ({ error: { code, reason, message } }),
  );

const input = createInterface({ input: process.stdin });
while (descriptors() < limit - free) openSync("/dev/null");

for await (const line of input) {
  Object.assign(peak, { children: 0, descriptors: 0 });
  const outcomes = await Promise.all(JSON.parse(line).map(call));
  // All that a call has opened is closed soon after it, or the test's own limit ends the wait.
  while (descriptors() > limit - free) await sleep(10);
  console.log(JSON.stringify({ outcomes, ...peak }));
}
