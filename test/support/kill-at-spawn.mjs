// Loaded with --import: kills this process as soon as litestream's `restore` or `replicate` has been started, before it can
// tell anybody the new pid.
import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";

const { spawn } = childProcess;
childProcess.spawn = (file, args, options) => {
  const child = spawn(file, args, options);
  if (/^(?:restore|replicate)$/.test(args[0]) && args[1] !== "-h") process.kill(process.pid, "SIGKILL");
  return child;
};
syncBuiltinESMExports();
