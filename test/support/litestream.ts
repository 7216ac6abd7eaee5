import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
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

/** Of 0.3: 0.3.12 – 0.3.14, which built from source do not say their version. */
export const saysWhatIsUp = (file: string) => readFileSync(file).includes("wal segment written");
export const LOGS_WAL_SEGMENTS: boolean = IS_0_3 && saysWhatIsUp(LITESTREAM);
/** 0.3.9 does not say when it has uploaded: it is refused for `replicate()`. */
export const MUTE: boolean = IS_0_3 && !LOGS_WAL_SEGMENTS;

export const VERSION: string = spawnSync(LITESTREAM, ["version"], { encoding: "utf8" }).stdout.trim();
