import { type Fingerprint, fileOf, isGone } from "./database-files.ts";
import type { Replica } from "./litestream/dialect.ts";
import type { Logger } from "./logger.ts";
import { processState } from "./process-state.ts";
import { isUntouched, type Look, lookAt } from "./untouched.ts";

/** A database and its replica. */
export type Place = Pick<Replica, "dbpath" | "s3" | "endpoint" | "region">;

/** What this process knows of a database file. */
interface Known {
  /** A `restore()` has ended well. */
  booted: boolean;
  /** The file was there at a look, and this process has not removed it since. */
  seen: boolean;
  /** This process has removed the file: on a proof, or by `delete()`. */
  removed: boolean;
  /** How the files looked when everything in them was in a replica, by replica. */
  readonly proofs: Map<string, Look>;
  /** Runs until somebody asks why there is no file. */
  question: NodeJS.Timeout | undefined;
}

/** So long after a restore without a file an app has opened its database. */
export const QUESTION_MS = 10_000;

const files = processState("database files", () => new Map<string, Known>());

/** The same for every path to the same file with the same replica. */
export const replicaKeyOf = (place: Place) => JSON.stringify([fileOf(place.dbpath), replicaOf(place)]);

const replicaOf = ({ s3, endpoint = "", region = "" }: Place) => JSON.stringify([s3, endpoint, region]);

function knownOf(dbpath: string): Known {
  const file = fileOf(dbpath);
  const known = files.get(file) ?? {
    booted: false,
    seen: false,
    removed: false,
    proofs: new Map(),
    question: undefined,
  };
  files.set(file, known);
  return known;
}

/** For listeners, whose errors would end the app. */
export function unlessThrown<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** Whether there is a file; remembers that there was one. */
export function isThere(dbpath: string): boolean {
  if (isGone(dbpath)) return false;
  Object.assign(knownOf(dbpath), { seen: true, removed: false });
  return true;
}

/** A `restore()` begins. */
export function noteBooting(dbpath: string): void {
  clearTimeout(knownOf(dbpath).question);
}

/** A `restore()` has ended well. If there is no file then, nor after a while, the log asks for the file. */
export function noteBooted({ dbpath, logger }: { dbpath: string; logger: Logger }): void {
  const known = knownOf(dbpath);
  Object.assign(known, { booted: true, removed: false });
  clearTimeout(known.question);
  if (isThere(dbpath)) return;
  known.question = setTimeout(() => {
    if (unlessThrown(() => isThere(dbpath)) !== false) return;
    logger.warn(
      { dbpath },
      `nothing is at ${dbpath}, ${QUESTION_MS / 1000} s after restore(), which found no backup: is this the file that the app opens? What is written to another file gets into no replica.`,
    );
  }, QUESTION_MS).unref();
}

/** The file has come from its replica. */
export function noteRestored(place: Place, look: Look): void {
  knownOf(place.dbpath).proofs.set(replicaOf(place), look);
}

/** Everything that was committed is in the replica. The file is still there, or has just been removed. */
export function noteProven(place: Place, proof: Fingerprint | undefined): void {
  const { dbpath } = place;
  if (isThere(dbpath)) knownOf(dbpath).proofs.set(replicaOf(place), lookAt(dbpath, proof));
  else noteRemoved(dbpath);
}

/** This process has removed the file. */
export function noteRemoved(dbpath: string): void {
  const known = knownOf(dbpath);
  clearTimeout(known.question);
  known.proofs.clear();
  Object.assign(known, { seen: false, removed: true });
}

/** Whether everything in the file is in the replica, for sure. */
export function isProven(place: Place): boolean {
  const look = knownOf(place.dbpath).proofs.get(replicaOf(place));
  return look !== undefined && isUntouched(place.dbpath, look);
}

/**
 * Why there is no file. `removed`: by this process. `not-yet`: no `restore()` has ended. `never`: a `restore()` has ended, and no
 * file was ever there. `vanished`: a file was there, and this process has not removed it.
 */
export function whyGone(dbpath: string): "removed" | "not-yet" | "never" | "vanished" {
  const { booted, seen, removed } = knownOf(dbpath);
  if (removed) return "removed";
  if (seen) return "vanished";
  return booted ? "never" : "not-yet";
}
