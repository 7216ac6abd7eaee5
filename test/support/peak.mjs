// An app in a process of its own: `node --expose-gc peak.mjs CALLS-AS-JSON` makes calls on the built library, one after the other,
// and prints for each, as a JSON line, what came of it and the most memory that this process has had so far, in MB.
import { readFileSync } from "node:fs";
import { ConfigS3 } from "../../dist/index.js";

// Up to 64 MB of buffers that nobody needs any more lie about otherwise: V8 sees no reason to collect them.
setInterval(() => globalThis.gc(), 200).unref();

for (const { settings, litestream, method, args } of JSON.parse(process.argv[2])) {
  const env = { PATH: process.env.PATH, LOG_LEVEL: "silent" };
  const config = new ConfigS3(settings, { envFile: false, litestream, env });
  const outcome = await config[method](...args).catch(({ code, reason, message }) => ({
    code,
    reason,
    message,
  }));
  // Not resourceUsage().maxRSS: before its exec, a child counts the memory of the process that started it.
  const [, kb] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const short = JSON.stringify(outcome, (_, value) =>
    typeof value === "string" ? value.slice(-200) : value,
  );
  process.stdout.write(`{"outcome":${short},"peakMb":${Number(kb) / 1024}}\n`);
}
