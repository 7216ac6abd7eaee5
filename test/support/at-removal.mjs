// Loaded with --import: the first time that this process has moved the database away to remove it, it stands still while
// another one (the arguments of `node` in AT_REMOVAL) runs for a second at most.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { renameSync } = fs;
let first = true;
fs.renameSync = (from, to) => {
  renameSync(from, to);
  if (!first || !String(to).endsWith(".removing")) return;
  first = false;
  spawnSync(process.execPath, JSON.parse(process.env.AT_REMOVAL), { timeout: 1000 });
};
syncBuiltinESMExports();
