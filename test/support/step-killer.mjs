// Loaded with --import: kills this process with SIGKILL before or after its nth file-changing call, KILL_AT="n:before"
// or "n:after". Without KILL_AT nothing happens; the number of calls is printed at the exit either way.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const [at, moment] = (process.env.KILL_AT ?? "").split(":");
const steps = [];

for (const name of [
  "linkSync",
  "mkdirSync",
  "renameSync",
  "rmSync",
  "rmdirSync",
  "unlinkSync",
  "writeFileSync",
]) {
  const original = fs[name];
  fs[name] = (...args) => {
    steps.push(`${name} ${args[0]}`);
    const isStep = steps.length === Number(at);
    if (isStep && moment === "before") process.kill(process.pid, "SIGKILL");
    const result = original(...args);
    if (isStep && moment === "after") process.kill(process.pid, "SIGKILL");
    return result;
  };
}
syncBuiltinESMExports();
process.once("exit", () => process.stderr.write(`steps ${steps.length}\n`));
