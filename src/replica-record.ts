import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { recordFile } from "./database-files.ts";
import { FileSystemError, messageOf } from "./errors.ts";
import { placeOfSpelling } from "./replica-place.ts";

/** How far a replica has come: a text that sorts as it goes on, for each generation (0.3), or one for all (0.5). */
export type Position = Readonly<Record<string, string>>;

/** What a machine knows of a replica, in `.NAME-litestream-s3` beside the database. */
export interface ReplicaRecord {
  /** Which replica it is (`placeOf`), so that another one is never confused with it. */
  readonly place: string;
  /** How far that had come when it was restored from, or last written to; `undefined` where it could not be looked at then. */
  readonly position: Position | undefined;
  /** Whether an upload has begun since, of which nobody knows how far it came. */
  readonly uploading: boolean;
  /** Nothing has gone up from here since the restore: what litestream keeps beside the database comes from somebody else. */
  readonly onlyRestored?: boolean;
}

/** So many replicas of one database are remembered. */
const MOST = 5;

/**
 * What this machine knows of the replicas of its database, that of the last one first. `missing`: it has none, nothing else;
 * `damaged`: what stands there says nothing.
 * @throws FileSystemError where it can't be read, so that nobody knows
 */
export function readRecords(dbpath: string): readonly ReplicaRecord[] | "missing" | "damaged" {
  const file = recordFile(dbpath);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return "missing";
    const words = `What this machine knows of its replica can't be read from ${file}: ${messageOf(error)}.`;
    throw new FileSystemError(`${words} ${adviceFor(code)}`, { cause: error });
  }
  try {
    return recordsIn(JSON.parse(text)) ?? "damaged";
  } catch {
    return "damaged";
  }
}

function adviceFor(code: string): string {
  if (code === "EACCES" || code === "EPERM") {
    const user = process.getuid?.();
    const who = user === undefined ? "" : ` (uid ${user})`;
    return `It belongs to another user than this process'${who}: chown it, and everything beside it, to the user that runs the app.`;
  }
  if (code === "EISDIR" || code === "ELOOP") return "It must be a plain file: move away what stands there.";
  return "Check the disk. If the file is lost, remove it: before a backup is replaced, you are asked then.";
}

/**
 * Writes down what is known of one replica, and keeps what is known of others. In one piece: a kill leaves the old file or the
 * new one. The user who may read the database may read it too.
 * @param lasting whether it must survive a power cut
 * @throws FileSystemError
 */
export function writeRecord(
  dbpath: string,
  record: ReplicaRecord,
  others: readonly ReplicaRecord[],
  lasting = false,
) {
  const replicas = [record, ...others.filter(({ place }) => place !== record.place)].slice(0, MOST);
  const text = JSON.stringify({ replicas });
  const file = recordFile(dbpath);
  const unfinished = `${file}.tmp`;
  try {
    rmSync(unfinished, { force: true });
    const fd = openSync(unfinished, "wx", 0o600);
    try {
      writeSync(fd, text);
      giveTo(fd, dbpath);
      if (lasting) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(unfinished, file);
  } catch (error) {
    try {
      rmSync(unfinished, { force: true });
    } catch {
      // Why it could not be written matters more.
    }
    if (overwrite(file, text)) return;
    throw new FileSystemError(
      `What this machine knows of its replica can't be written to ${file}: ${messageOf(error)}. Check the space on the disk, and who may write to the folder.`,
      { cause: error },
    );
  }
}

/** To who has the database; before there is one, to who has the folder. */
function giveTo(fd: number, dbpath: string): void {
  const database = lstatSync(dbpath, { throwIfNoEntry: false });
  const model = database?.isFile() ? database : lstatSync(dirname(dbpath));
  // A folder's mode may let everybody write, as /tmp's.
  const mode = 0o600 | (model.mode & (model === database ? 0o666 : 0o664));
  const own = fstatSync(fd);
  try {
    if (own.uid !== model.uid || own.gid !== model.gid) fchownSync(fd, model.uid, model.gid);
  } catch {
    // Only root may do that; and then it is not needed.
  }
  try {
    if ((own.mode & 0o777) !== mode) fchmodSync(fd, mode);
  } catch {
    // Not every file system has modes.
  }
}

/** What a file system gives to a file at once. */
const BLOCK = 4096;

/**
 * On a full disk there is no room for another file, but there is in the block that the old one has. Spaces cover the rest of a
 * longer text, in the same write: a kill leaves no mixture of both.
 */
function overwrite(file: string, text: string): boolean {
  try {
    const fd = openSync(file, constants.O_RDWR | constants.O_NOFOLLOW);
    try {
      const { size } = fstatSync(fd);
      const length = Buffer.byteLength(text);
      if (length > BLOCK || size === 0) return false;
      writeSync(fd, text + " ".repeat(Math.max(0, size - length)), 0);
      return true;
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

/** `undefined` where the file holds something else. */
function recordsIn(value: unknown): ReplicaRecord[] | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { replicas, replica, ...rest } = value as Record<string, unknown>;
  // Of before: one replica, by the settings as they were spelled.
  const listed = typeof replica === "string" ? [{ ...rest, place: placeOfSpelling(replica) }] : replicas;
  return Array.isArray(listed) && listed.length > 0 && listed.every(isRecord) ? listed : undefined;
}

function isRecord(value: unknown): value is ReplicaRecord {
  if (typeof value !== "object" || value === null) return false;
  const { place, position, uploading, onlyRestored = false } = value as Record<string, unknown>;
  return (
    typeof place === "string" &&
    typeof uploading === "boolean" &&
    typeof onlyRestored === "boolean" &&
    (position === undefined || isPosition(position))
  );
}

function isPosition(value: unknown): value is Position {
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((end) => typeof end === "string")
  );
}
