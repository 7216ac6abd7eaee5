// Loaded with --import: the first time that this process has moved the database away to remove it, it stands still until
// another one (the arguments of `node` in AT_REMOVAL) has ended, or says that it waits for this one.
import { spawn } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { renameSync } = fs;
let first = true;
fs.renameSync = (from, to) => {
  renameSync(from, to);
  if (!first || !String(to).endsWith(".removing")) return;
  first = false;
  const log = `${process.env.AT_REMOVAL_LOG}`;
  const fd = fs.openSync(log, "w");
  const other = spawn(process.execPath, JSON.parse(process.env.AT_REMOVAL), { stdio: ["ignore", fd, fd] });
  // Nothing else runs meanwhile, so that it is a zombie when it has ended: proc(5).
  const hasEnded = () => / [ZX] /.test(fs.readFileSync(`/proc/${other.pid}/stat`, "utf8"));
  while (!hasEnded() && !fs.readFileSync(log, "utf8").includes("waiting")) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  }
  other.kill("SIGKILL");
};
syncBuiltinESMExports();
