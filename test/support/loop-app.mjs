// An app that does nothing but what it is told by IPC, and watches its event loop meanwhile. {settings, litestream, method,
// args} makes a call on the built library, {idle: true} does nothing until {stop: true}. It sends {ready: true} when it
// watches, and then {value, stalls}: what came of it, and for each tenth of a second the longest that its event loop stood
// still, and how long of that time the process was ready to run, and the machine had no core for it.
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigS3 } from "../../dist/index.js";

const RESOLUTION_MS = 1;
const EVERY_MS = 100;

/** Watches until it is told to stop. */
function watch() {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  const stalls = [];
  let from = Date.now();
  let waited = waitedForCoreMs();
  const look = () => {
    const [to, waitedUntilNow] = [Date.now(), waitedForCoreMs()];
    // The monitor counts its own interval in.
    const longestMs = delays.max / 1e6 - RESOLUTION_MS;
    stalls.push({ from, to, longestMs, waitedForCoreMs: waitedUntilNow - waited });
    [from, waited] = [to, waitedUntilNow];
    delays.reset();
  };
  delays.enable();
  const timer = setInterval(look, EVERY_MS);
  return () => {
    clearInterval(timer);
    look();
    delays.disable();
    return stalls;
  };
}

/** Of the main thread, since it began: proc(5), schedstat. 0 where the system does not count it. */
function waitedForCoreMs() {
  const file = "/proc/self/schedstat";
  return existsSync(file) ? Number(readFileSync(file, "utf8").split(" ")[1]) / 1e6 : 0;
}

async function call({ settings, litestream, method, args }) {
  const config = new ConfigS3(settings, { envFile: false, litestream });
  return await config[method](...args);
}

process.on("disconnect", () => process.exit()); // the test has ended
for (;;) {
  const [order] = await once(process, "message");
  const stop = watch();
  await sleep(EVERY_MS);
  process.send({ ready: true });
  const value = order.idle ? (await once(process, "message"))[0] : await call(order);
  await sleep(EVERY_MS); // what has been held up is seen when it goes on
  process.send({ value, stalls: stop() });
}
