import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { litestreamFolder, recordFile } from "../database-files.ts";
import { messageOf } from "../errors.ts";
import { type Format, placeOf } from "../replica-place.ts";
import { type Position, type ReplicaRecord, readRecords, writeRecord } from "../replica-record.ts";
import type { Job } from "./binary.ts";
import { startLitestream } from "./configuration.ts";
import { type Complaint, complaintOf, type Dialect, type Seen } from "./dialect.ts";
import { pause } from "./limit.ts";

// Two machines that write to one replica path: the last one wins, whole, and litestream tells neither. What tells is that
// the replica has come further than this machine knows of.

/** In characters; a line has about 80. A longer list has lost its header, and counts as one that can't be read. */
export const LIST_LIMIT = 16 * 1024 * 1024;

/** Lists the replica; a complaint where that could not be done. */
export async function lookAtReplica(
  job: Job,
  dialect: Dialect,
  signal: AbortSignal,
): Promise<Seen | Complaint | undefined> {
  if (dialect.position === undefined) return undefined;
  const args = dialect.position.args(job.dbpath);
  const child = startLitestream(job, args, { signal, capture: LIST_LIMIT }, dialect.listing);
  const { exitCode, stdout, stderr, lines } = await child.ended;
  const seen = exitCode === 0 ? dialect.position.of(stdout, stderr) : undefined;
  if (seen !== undefined) return seen;
  const complaint = complaintOf(lines, [job.dbpath, job.s3]);
  return complaint.said || complaint.reason !== "failed"
    ? complaint
    : { ...complaint, words: "the list of the replica's objects could not be read" };
}

/**
 * What this machine knows of the replica. `position`: how far that had come; `undefined` where it was restored from without
 * a look at it. `isLast`: what litestream keeps beside the database is of this replica, and not of another one. `hasUploaded`: this
 * machine has written to it, and not only restored from it. `stranger`: this
 * machine has never restored from it, nor written to it, as far as anybody knows; why, in words.
 */
export type Knowledge =
  | { readonly position: Position | undefined; readonly isLast: boolean; readonly hasUploaded: boolean }
  | { readonly stranger: string };

/** @throws FileSystemError where what is written down can't be read */
export function knowledgeOf(job: Job, dialect: Dialect): Knowledge {
  const { dbpath } = job;
  const records = readRecords(dbpath);
  if (records === "missing") {
    return { stranger: "this machine has neither restored its database from that nor written to it" };
  }
  if (records === "damaged") {
    return {
      stranger: `the record ${recordFile(dbpath)} is damaged, so that it is unknown whether the backup is this machine's`,
    };
  }
  const recordOf = (format: Format) => records.find(({ place }) => place === placeOf(job, format));
  const record = recordOf(dialect.format);
  if (record === undefined) {
    // 0.5 restores from the backups of 0.3 too, and can't say how far those had come.
    if (dialect.format === "0.3" && recordOf("0.5") !== undefined)
      return { position: undefined, isLast: false, hasUploaded: false };
    return {
      stranger: `this machine has neither restored its database from that nor written to it, but to another replica (${records[0]?.place})`,
    };
  }
  const { position, uploading } = record;
  const isLast = record === records[0];
  return {
    position: uploading && isLast && position ? furthest(position, ownPosition(dbpath)) : position,
    isLast,
    hasUploaded: !record.onlyRestored,
  };
}

/**
 * Writes down how far the replica has come.
 * @param lasting whether it must survive a power cut
 * @throws FileSystemError
 */
export function writeDown(
  job: Job,
  dialect: Dialect,
  state: Omit<ReplicaRecord, "place">,
  lasting = true,
): void {
  const { dbpath } = job;
  const records = readRecords(dbpath);
  const place = placeOf(job, dialect.format);
  const others = typeof records === "string" ? [] : records;
  // What litestream keeps beside the database will soon tell of this replica, and not of another.
  const settled = others.map((other) =>
    other.uploading && other.position && other.place !== place
      ? { ...other, position: furthest(other.position, ownPosition(dbpath)), uploading: false }
      : other,
  );
  writeRecord(dbpath, { place, ...state }, settled, lasting);
}

/** The same where it is known already. A full disk is no reason to stop then: what it costs is said in the log. */
export function remember(job: Job, dialect: Dialect, position: Position, uploading: boolean): void {
  try {
    writeDown(job, dialect, { position, uploading }, false);
  } catch (error) {
    const { dbpath } = job;
    job.logger.warn(
      { dbpath },
      `the replica's position could not be written down, so that this machine may take its own backup for another's: ${messageOf(error)}`,
    );
  }
}

/** Why this machine's database must not replace what the replica holds; `undefined`: it may. */
export function objectionTo(
  dbpath: string,
  knowledge: Knowledge,
  seen: Seen,
): { reason: "replica-moved" | "foreign-backup"; words: string } | undefined {
  if ("stranger" in knowledge) {
    const holds = `the replica holds a backup${timeOf(seen.at)}`;
    const isEmpty = Object.keys(seen.position).length === 0;
    return isEmpty ? undefined : { reason: "foreign-backup", words: `${holds}, and ${knowledge.stranger}` };
  }
  const { position, isLast, hasUploaded } = knowledge;
  const comparable = isLast && hasUploaded ? seen : { ...seen, copies: new Map() };
  if (position === undefined || !hasMovedOn(dbpath, position, comparable)) return undefined;
  return { reason: "replica-moved", words: movedOn(seen.at) };
}

/** Where the replica was not looked at when it was restored from. */
export const UNSEEN =
  "how far the replica had come when this machine restored from it could not be told, so that it is unknown whether another machine has written to it since: it is replaced";

/**
 * Whether the replica holds what this machine does not know of: something beyond what it knows, or an object of another size
 * in the place of one of its own, where both have uploaded under the same TXID.
 */
export function hasMovedOn(dbpath: string, known: Position, { position, copies }: Seen): boolean {
  if (Object.entries(position).some(([part, end]) => end > (known[part] ?? ""))) return true;
  const folder = litestreamFolder(dbpath);
  return [...copies].some(([name, size]) => {
    const path = join(folder, name);
    const own = statSync(path, { throwIfNoEntry: false })?.size;
    // What a full disk or a power cut has left of a file says nothing of another machine.
    return own !== undefined && own !== size && isWhole(path, own);
  });
}

const HEADER = 100;
/** The end of the index of pages, its size, and two checksums. */
const TRAILER = 1 + 8 + 16;

/** Whether an LTX file has its beginning and its end (github.com/superfly/ltx, seen with 0.5.10 and 0.5.17). */
function isWhole(path: string, size: number): boolean {
  if (size < HEADER + TRAILER) return false;
  try {
    const fd = openSync(path, "r");
    try {
      const [begin, end] = [Buffer.alloc(4), Buffer.alloc(TRAILER)];
      readSync(fd, begin, 0, begin.length, 0);
      readSync(fd, end, 0, end.length, size - end.length);
      const index = end.readBigUInt64BE(1);
      return begin.toString() === "LTX1" && end[0] === 0 && index > 0n && index < BigInt(size);
    } finally {
      closeSync(fd);
    }
  } catch {
    return false; // litestream has removed it meanwhile
  }
}

/** In words; `at` by the store's clock. */
export function movedOn(at: Date | undefined): string {
  return `another machine has written to the replica${timeOf(at)} since this one last restored from it or wrote to it`;
}

const timeOf = (at: Date | undefined) =>
  at === undefined ? "" : ` (at ${at.toISOString().replace(".000Z", "Z")})`;

/** The stores, and so litestream 0.3's restore, know a generation's time in whole seconds, and take either of two with the same. */
export const BETWEEN_GENERATIONS_MS = 1100;

/** Before a replica of another machine's is replaced: its newest generation may be of just now. */
export async function afterTheOther(dialect: Dialect, signal: AbortSignal): Promise<void> {
  if (dialect.replicate?.startsFresh) await pause(BETWEEN_GENERATIONS_MS, signal);
}

/** The further one in each part. */
export function furthest(a: Position, b: Position): Position {
  const result: Record<string, string> = { ...a };
  for (const [part, end] of Object.entries(b)) if (end > (result[part] ?? "")) result[part] = end;
  return result;
}

/** A generation is one machine's own, whatever its end. */
const ANY_END = "~";

/** What litestream has written from here, or was about to: what it keeps beside the database. */
export function ownPosition(dbpath: string): Position {
  const folder = litestreamFolder(dbpath);
  const newest = newestOf(join(folder, "ltx", "0"));
  const generation = textOf(join(folder, "generation"));
  return {
    ...(newest === undefined ? {} : { "": newest }),
    ...(/^[0-9a-f]{16}$/.test(generation) ? { [generation]: ANY_END } : {}),
  };
}

/** The TXID that litestream 0.5 has come to, in hexadecimal: its newest file of level 0. */
function newestOf(folder: string): string | undefined {
  try {
    const ids = readdirSync(folder).flatMap(
      (name) => /^[0-9a-f]{16}-([0-9a-f]{16})\.ltx$/.exec(name)?.[1] ?? [],
    );
    return ids.sort().at(-1);
  } catch {
    return undefined;
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}
