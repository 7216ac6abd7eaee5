// Loaded with --import: kills this process with SIGKILL once it has written down what it knows of a replica.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const { renameSync } = fs;
fs.renameSync = (from, to) => {
  renameSync(from, to);
  if (String(to).endsWith("-litestream-s3")) process.kill(process.pid, "SIGKILL");
};
syncBuiltinESMExports();
