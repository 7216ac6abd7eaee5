import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";

/** The litestream under test: LITESTREAM_BIN, else the native file of the npm package. */
export const LITESTREAM: string =
  process.env.LITESTREAM_BIN ||
  createRequire(import.meta.url).resolve(
    `@flydotio/litestream-${process.platform}-${process.arch}/litestream`,
  );

/** Told from what the binary itself lists, not by the code under test. */
export const IS_0_3: boolean = /^\s+generations\s/m.test(
  spawnSync(LITESTREAM, [], { encoding: "utf8" }).stdout,
);

export const VERSION: string = spawnSync(LITESTREAM, ["version"], { encoding: "utf8" }).stdout.trim();
