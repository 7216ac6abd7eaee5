// Loaded with --import: the first time that this process moves the database away to remove it, another process (the arguments
// of `node` in LATE) has just opened it, and committed what it has. Where the database is put back, that process ends.
import { spawn } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { linkSync, renameSync } = fs;
let late;
fs.renameSync = (from, to) => {
  if (late === undefined && String(to).endsWith(".removing")) {
    const log = `${process.env.LATE_LOG}`;
    late = spawn(process.execPath, JSON.parse(process.env.LATE), {
      stdio: ["pipe", fs.openSync(log, "w"), "inherit"],
    });
    while (!fs.readFileSync(log, "utf8").includes("acked")) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
  renameSync(from, to);
};
fs.linkSync = (from, to) => {
  linkSync(from, to);
  if (String(from).endsWith(".removing")) late?.kill("SIGKILL");
};
syncBuiltinESMExports();
