import { lstatSync } from "node:fs";
import { type Fingerprint, fileKind, fingerprint, sameFingerprint } from "./database-files.ts";

/** How the files of a database looked when everything in them was in a replica. */
export interface Look {
  readonly fingerprint: Fingerprint | undefined;
  /** The main file; `undefined` if a write right after the look need not show. */
  readonly main: string | undefined;
}

/** File times tick in steps of 4 to 10 ms, of 2 s on some file systems. */
const TICKS_MS = 50;
const COARSE_MS = 2100;

export function lookAt(dbpath: string, seen = fingerprint(dbpath)): Look {
  return { fingerprint: seen, main: mainFile(dbpath, Date.now()) };
}

/**
 * True only if nothing has been committed since the look. Either the `-wal` is the same; or there is none, or an empty one, and
 * the main file is the same. The end of the last connection moves a `-wal` into the main file: nobody can tell then.
 */
export function isUntouched(dbpath: string, look: Look): boolean {
  if (sameFingerprint(look.fingerprint, fingerprint(dbpath))) return true;
  const wal = lstatSync(`${dbpath}-wal`, { throwIfNoEntry: false });
  if (wal !== undefined && wal.size > 0) return false;
  if (fileKind(`${dbpath}-journal`) !== "missing") return false;
  return look.main !== undefined && look.main === mainFile(dbpath);
}

function mainFile(dbpath: string, now = Number.POSITIVE_INFINITY): string | undefined {
  const stat = lstatSync(dbpath, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  const ageMs = now - Number(stat.mtimeMs);
  if (ageMs < (stat.mtimeNs % 1_000_000_000n === 0n ? COARSE_MS : TICKS_MS)) return undefined;
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}
