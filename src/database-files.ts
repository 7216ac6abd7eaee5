import { randomBytes } from "node:crypto";
import {
  close,
  closeSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { open, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { FileSystemError, messageOf } from "./errors.ts";
import { processState } from "./process-state.ts";

// The database and its -shm are never opened in this process while they are in place: closing them would drop the POSIX
// locks that the app's SQLite holds (sqlite.org/howtocorrupt.html, 2.2).

/** SQLite's files beside a database, in the order of their removal. */
const SIDECARS = ["-wal", "-shm", "-journal"] as const;

/** Where the main file waits for the last look before its removal. */
const ASIDE = ".removing";

/** ext3, vfat and others keep times in steps of up to 2 s: a second commit within one changes nothing that shows. */
const COARSE_MS = 2100;
const EARLIER_S = 3;

/** Whether the database has 0 bytes, as SQLite leaves it that opened it and wrote nothing. */
export function isEmpty(dbpath: string): boolean {
  return lstatSync(dbpath, { throwIfNoEntry: false })?.size === 0 && fileKind(`${dbpath}-wal`) === "missing";
}

/** What would change with a commit. */
export interface Fingerprint {
  readonly database: string;
  readonly wal: string;
}

export type FileKind = "missing" | "file" | "other";

/** What stands at the path; a symbolic link is `other`: SQLite and litestream look for its `-wal` in different places. */
export function fileKind(path: string): FileKind {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return "missing";
  return stat.isFile() ? "file" : "other";
}

/**
 * Looks at the database without opening it; `undefined` where that proves nothing: there is no `-wal`, or its time looks
 * like that of a file system with coarse times and is too young to tell two commits apart.
 */
export function fingerprint(dbpath: string, mainFile = dbpath): Fingerprint | undefined {
  const database = identityOf(mainFile);
  const wal = lstatSync(`${dbpath}-wal`, { bigint: true, throwIfNoEntry: false });
  if (database === undefined || wal === undefined) return undefined;
  const coarse = wal.mtimeNs % 1_000_000_000n === 0n;
  if (coarse && Math.abs(Date.now() - Number(wal.mtimeMs)) < COARSE_MS) return undefined;
  return {
    // Not its time or size: litestream's own checkpoint changes both.
    database,
    wal: `${wal.dev}:${wal.ino}:${wal.size}:${wal.mtimeNs}`,
  };
}

/**
 * The first salt in the `-wal`'s header, to which SQLite adds 1 each time that it begins the file anew
 * (sqlite.org/fileformat2.html, 4.1); `undefined` where there is no `-wal`. Unlike the other two files it carries no locks.
 */
export function walSalt(dbpath: string): number | undefined {
  const header = Buffer.alloc(20);
  try {
    const fd = openSync(`${dbpath}-wal`, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      if (readSync(fd, header) !== header.length) return undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
  const isWal = (header.readUInt32BE(0) & ~1) === 0x377f0682;
  return isWal ? header.readUInt32BE(16) : undefined;
}

/** How long ago the file was made, in milliseconds: a restored one, by that restore. 0 where nobody knows. */
export function ageOf(dbpath: string): number {
  const stat = lstatSync(dbpath, { throwIfNoEntry: false });
  // Where the file system keeps no birth time, it is 0 or the time of the last change.
  return stat?.birthtimeMs ? Math.max(0, Date.now() - stat.birthtimeMs) : 0;
}

/** The same for every path to the file, as long as its folder is there. */
export function fileOf(dbpath: string): string {
  try {
    return join(realpathSync(dirname(dbpath)), basename(dbpath));
  } catch {
    return dbpath;
  }
}

/** Which file stands at the path; `undefined` where none does. */
export function identityOf(dbpath: string): string | undefined {
  const stat = lstatSync(dbpath, { bigint: true, throwIfNoEntry: false });
  return stat && `${stat.dev}:${stat.ino}`;
}

/** True only where both are known and equal. */
export function sameFingerprint(a: Fingerprint | undefined, b: Fingerprint | undefined): boolean {
  return a !== undefined && b !== undefined && a.database === b.database && a.wal === b.wal;
}

/**
 * Removes everything that belongs to the database, nothing else in the folder. The main file goes first: killed
 * in between, a main file without its `-wal` would be a valid database that has lost its last commits. To be called with
 * the database's lock.
 * @param proven the look that proved every commit to be elsewhere; the last one comes when the main file has left its
 * place, so that a commit is either seen by it or later than the removal. Default: removed whatever it holds.
 * @param isInUse asked when the main file has left its place, so that nobody can open it any more
 * @returns false if it is in use, or something was committed after `proven`: everything is in its place again
 * @throws FileSystemError where the main file could not be removed, or only that: `isGone` tells
 */
export function removeDatabase(
  dbpath: string,
  proven?: Fingerprint,
  isInUse: () => boolean = () => false,
): boolean {
  const aside = dbpath + ASIDE;
  return asFileSystemError(dbpath, () => {
    if (fileKind(dbpath) === "file") {
      // A kill may have left two names of one file; renaming one to the other does nothing.
      if (proven === undefined || identityOf(aside) === identityOf(dbpath)) rmSync(aside, { force: true });
      if (fileKind(aside) !== "missing") throw twoDatabases(dbpath);
      renameSync(dbpath, aside);
      // In this order: whoever commits and closes between the two shows in the second.
      if (isInUse() || (proven !== undefined && !sameFingerprint(proven, fingerprint(dbpath, aside)))) {
        putBack(dbpath);
        return false;
      }
    } else {
      rmSync(dbpath, { force: true });
    }
    try {
      removeFile(aside);
    } catch (error) {
      putBack(dbpath);
      throw error;
    }
    removeCompanions(dbpath);
    return true;
  });
}

/** @throws FileSystemError where another file has come into its place */
function putBack(dbpath: string): void {
  if (!linkOrRename(dbpath + ASIDE, dbpath)) throw twoDatabases(dbpath);
}

function twoDatabases(dbpath: string): FileSystemError {
  return new FileSystemError(
    `There are two databases: ${dbpath + ASIDE}, whose removal was not finished, and ${dbpath}, which has come into its place since. Find out which one is right, and move the other one away.`,
  );
}

/** Whether the main file is neither in its place nor where it waits for its removal. */
export function isGone(dbpath: string): boolean {
  return fileKind(dbpath) === "missing" && fileKind(dbpath + ASIDE) === "missing";
}

/**
 * Puts a database back whose removal was cut short by a kill, perhaps before the last look. To be called with the
 * database's lock.
 * @throws FileSystemError when it can't be put back
 */
export function recoverDatabase(dbpath: string): void {
  const aside = dbpath + ASIDE;
  if (fileKind(aside) === "missing") return;
  try {
    if (fileKind(aside) === "other") throw new Error("it is no plain file");
    if (identityOf(aside) === identityOf(dbpath)) unlinkSync(aside);
    else putBack(dbpath);
  } catch (error) {
    if (error instanceof FileSystemError) throw error;
    throw new FileSystemError(
      `The database in ${aside} could not be put back to ${dbpath}: ${messageOf(error)}. Check who may write to the folder.`,
      { cause: error },
    );
  }
}

/**
 * Removes what an older life left beside a database that is not there: SQLite would replay a stale `-wal`, and
 * litestream would go on from a stale folder. To be called with the database's lock.
 */
export function removeLeftovers(dbpath: string): void {
  asFileSystemError(dbpath, () => {
    if (isGone(dbpath)) removeCompanions(dbpath);
  });
}

function removeCompanions(dbpath: string): void {
  // First: a database that comes to be here afterwards is another one, of which it says nothing.
  removeFile(recordFile(dbpath));
  for (const suffix of SIDECARS) removeFile(dbpath + suffix);
  removeLitestreamFolder(dbpath);
  removeConfigurations(dbpath);
  removeFile(`${recordFile(dbpath)}.tmp`);
  removeAbandonedRestores(dbpath);
}

/** Where a nameless file stands for a moment, and for longer where the process is killed in it. */
const CONFIGURATION = ".litestream-config-";

/**
 * A file with a text that has no name any more, so that it ends with the last process that has it; beside the database,
 * where litestream writes as well, or, on a full disk, in the system's temporary folder.
 * @returns its descriptor, to be closed, at its beginning
 */
export function nameless(dbpath: string, text: string, flags: "wx+" | "ax+" = "wx+"): number {
  const name = basename(dbpath) + CONFIGURATION + randomBytes(8).toString("hex");
  try {
    removeConfigurations(dbpath);
    return writeNameless(join(dirname(dbpath), name), text, flags);
  } catch {
    return asFileSystemError(dbpath, () => writeNameless(join(tmpdir(), name), text, flags));
  }
}

function writeNameless(path: string, text: string, flags: "wx+" | "ax+"): number {
  const fd = openSync(path, flags, 0o600);
  try {
    writeSync(fd, text, 0); // at a position, so that the descriptor stays at the beginning
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  } finally {
    rmSync(path, { force: true });
  }
}

function removeConfigurations(dbpath: string): void {
  const folder = dirname(dbpath);
  const prefix = basename(dbpath) + CONFIGURATION;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (name.startsWith(prefix)) rmSync(join(folder, name), { force: true });
  }
}

/** litestream's own memory of the database. */
export const litestreamFolder = (dbpath: string) => join(dirname(dbpath), `.${basename(dbpath)}-litestream`);

/** What this machine knows of the replica. */
export const recordFile = (dbpath: string) => join(dirname(dbpath), `.${basename(dbpath)}-litestream-s3`);

/** Whether litestream has worked on the database before. */
export function hasLitestreamFolder(dbpath: string): boolean {
  return existsSync(litestreamFolder(dbpath));
}

export function removeLitestreamFolder(dbpath: string): void {
  asFileSystemError(dbpath, () => {
    const folder = litestreamFolder(dbpath);
    for (const path of entriesOf(folder)) if (fileKind(path) === "file") removeFile(path);
    rmSync(folder, { recursive: true, force: true });
  });
}

/** What is in the folder, at any depth; nothing where it can't be told, as while a litestream still works in it. */
function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true }).map((name) => join(folder, String(name)));
  } catch {
    return [];
  }
}

/** The removal of a smaller file takes less than a few milliseconds (ext4: 0.2 ms a MB), in bytes. */
const LARGE = 8 * 1024 * 1024;

/** The large files that are being closed after their removal. */
let freeing: Promise<unknown> = Promise.resolve();

/**
 * Removes the file's name; while a large file is open its blocks stay, and are freed in the background: 1 GB takes 0.2 s on
 * ext4, in which the app would stand still.
 */
function removeFile(path: string): void {
  const fd = openIfLarge(path);
  try {
    rmSync(path, { force: true });
  } finally {
    // After the removal, one at a time: a folder's removal would wait for it, and so would the app's own file calls.
    if (fd !== undefined) freeing = freeing.then(() => new Promise((done) => close(fd, done)));
  }
}

function openIfLarge(path: string): number | undefined {
  try {
    const { size } = lstatSync(path);
    return size > LARGE ? openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW) : undefined;
  } catch {
    return undefined; // missing, or not to be read: it can still be removed
  }
}

function asFileSystemError<T>(dbpath: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof FileSystemError) throw error;
    throw new FileSystemError(
      `Files of ${dbpath} could not be written or removed: ${messageOf(error)}. Check who may write to the folder.`,
      { cause: error },
    );
  }
}

const restoring = processState("restores under way", () => new Set<string>());

/** A file of its own beside the database for one restore: neither a kill nor an orphan can put half a file in place. */
export class RestoreTarget {
  readonly path: string;
  readonly #dbpath: string;
  readonly #cleans: boolean;

  /** @param cleans whether what belongs to an older database in its place goes first, or keeps this one from being put there */
  constructor(dbpath: string, cleans: boolean) {
    this.#dbpath = dbpath;
    this.#cleans = cleans;
    this.path = `${dbpath}.restore-${process.pid}-${randomBytes(4).toString("hex")}`;
    restoring.add(this.path);
  }

  /** Its size in bytes; `undefined` when litestream wrote no file. */
  get size(): number | undefined {
    return lstatSync(this.path, { throwIfNoEntry: false })?.size;
  }

  /** Makes the restored file survive a power cut. The file's time goes back a little: any later write then shows. */
  async sync(): Promise<void> {
    const earlier = Date.now() / 1000 - EARLIER_S;
    await utimes(this.path, earlier, earlier).catch(() => {});
    await syncPath(this.path);
  }

  /**
   * Moves the restored file into place, and never over an existing one. To be called with the database's lock.
   * @param before called once nothing older is left: what must be there when the database is
   * @returns false where a database, or a part of one, has come to be there meanwhile
   */
  async moveIntoPlace(before: () => void): Promise<boolean> {
    // In one go, so that nothing comes between: a stale -wal must be gone before the file is there.
    if (this.#cleans) recoverDatabase(this.#dbpath);
    if (fileKind(this.#dbpath) !== "missing") return false;
    if (this.#cleans) removeLeftovers(this.#dbpath);
    else if (inTheWay(this.#dbpath) !== undefined) return false;
    before();
    const placed = linkOrRename(this.path, this.#dbpath);
    if (placed) await syncFolder(dirname(this.#dbpath));
    // Of the database that has come meanwhile, nothing is known.
    else if (this.#cleans) removeFile(recordFile(this.#dbpath));
    return placed;
  }

  /** Removes what the restore left under its own name; what can't be removed now, the next one removes. */
  discard(): void {
    restoring.delete(this.path);
    try {
      removeAbandonedRestores(this.#dbpath);
    } catch {
      // The answer of the restore matters more.
    }
  }
}

function linkOrRename(from: string, to: string): boolean {
  try {
    linkSync(from, to); // unlike rename, it refuses to overwrite
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    // Some file systems have no hard links.
    if (fileKind(to) !== "missing") return false;
    renameSync(from, to);
    return true;
  }
  unlinkSync(from);
  return true;
}

async function syncPath(path: string): Promise<void> {
  const file = await open(path, "r");
  await file.sync().finally(() => file.close());
}

let syncing: Promise<void> = Promise.resolve();

/** Makes the new name survive a power cut. One folder at a time: each takes a file descriptor, and there may be many. */
async function syncFolder(path: string): Promise<void> {
  // Not every file system can; the replica still has everything.
  syncing = syncing.then(() => syncPath(path).catch(() => {}));
  await syncing;
}

/** What would be taken for the database, or for a part of it, if one were restored to this path; `undefined`: nothing. */
export function inTheWay(path: string): string | undefined {
  return ["", ...SIDECARS].map((suffix) => path + suffix).find((file) => fileKind(file) !== "missing");
}

/** Removes the files of restores that nobody runs any more; another process's stay while that process lives. */
function removeAbandonedRestores(dbpath: string): void {
  const folder = dirname(dbpath);
  const prefix = `${basename(dbpath)}.restore-`;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (!name.startsWith(prefix)) continue;
    // litestream adds to it: `.tmp`, `.tmp-00000000-wal`, `-txid` and others.
    const [, id, pid] = /^((\d+)-[0-9a-f]{8})(?:[.-].*)?$/.exec(name.slice(prefix.length)) ?? [];
    if (id === undefined || restoring.has(join(folder, prefix + id))) continue;
    if (Number(pid) !== process.pid && isAlive(Number(pid))) continue;
    removeFile(join(folder, name));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
