// Loaded with --import: kills this process as soon as the command of litestream's that KILL_AT matches has been started,
// before it can tell anybody the new pid.
import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";

const { spawn } = childProcess;
childProcess.spawn = (file, args, options) => {
  const child = spawn(file, args, options);
  if (new RegExp(`${process.env.KILL_AT}`).test(args.join(" ")) && args[1] !== "-h")
    process.kill(process.pid, "SIGKILL");
  return child;
};
syncBuiltinESMExports();
