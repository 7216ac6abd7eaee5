// Loaded with --import: the first time that this process moves the database away to remove it, another process (WRITER)
// has just been told to commit, and has done so.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { renameSync } = fs;
let first = true;
fs.renameSync = (from, to) => {
  if (first && String(to).endsWith(".removing")) {
    first = false;
    const before = fs.statSync(`${from}-wal`).mtimeMs;
    process.kill(Number(process.env.WRITER), "SIGUSR2");
    while (fs.statSync(`${from}-wal`).mtimeMs === before);
  }
  renameSync(from, to);
};
syncBuiltinESMExports();
