// Loaded with --import: what has been moved aside for its removal can neither be removed nor be moved back.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

for (const name of ["rmSync", "linkSync", "renameSync"]) {
  const real = fs[name];
  fs[name] = (path, ...rest) => {
    const aside = String(path).endsWith(".removing");
    if (aside && fs.existsSync(path)) throw Object.assign(new Error("EIO: held fast"), { code: "EIO" });
    return real(path, ...rest);
  };
}
syncBuiltinESMExports();
