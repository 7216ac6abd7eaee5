import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { identityOf, walSalt } from "../database-files.ts";
import type { Logger } from "../logger.ts";
import type { Job } from "./binary.ts";
import { startChild } from "./child.ts";
import { pause, withLimit } from "./limit.ts";

// A path is not the file that was there: an app that imports a backup puts another database into its place. The litestream
// that runs goes on with the old files, and would even write their pages into a file that was copied over in place.

/** The head of a database file (sqlite.org/fileformat2.html, 1.3), in bytes. */
const HEADER = 100;
/** In frames; a longer `-wal` is not searched. */
const MOST_FRAMES = 16_384;
/** A child process for each look is too dear where a checkpoint comes all the time. */
const BETWEEN_EXAMS_MS = 1000;
const EXAM_SECONDS = 5;
/** A checkpoint may be under way at the first reading. */
const AGAIN_MS = 100;

const pageSizeIn = (header: Buffer) => header.readUInt16BE(16);
const writeVersionIn = (header: Buffer) => header.readUInt8(18);
const changesIn = (header: Buffer) => header.readUInt32BE(24);

/**
 * Whether a file of the same identity is another database, by its header before and now.
 * @param origin where the new header comes from: `wal`: its first page is in the `-wal`, from where a checkpoint has it;
 * `nowhere`: all that was committed since is in the `-wal`, and this is not; `unknown`: the `-wal` was begun anew meanwhile
 */
export function isAnother(
  before: Buffer | undefined,
  now: Buffer,
  origin: "wal" | "nowhere" | "unknown",
): boolean {
  if (before === undefined || before.equals(now) || origin === "wal") return false;
  if (now.length < HEADER || origin === "nowhere") return true;
  // A change counter only goes up, until its 32 bits are full; back to a rollback journal no database goes that is open.
  const isOlder = (changesIn(now) - changesIn(before)) >>> 0 > 2 ** 31;
  return isOlder || pageSizeIn(now) !== pageSizeIn(before) || writeVersionIn(now) < writeVersionIn(before);
}

/** Whether the database at the path is the one that was there, without opening it. */
export class DatabaseWatch {
  readonly #job: Job;
  readonly #signal: AbortSignal;
  readonly #identity: string | undefined;
  /** Of the `-wal` that litestream has open. */
  #wal: string | undefined;
  /** Of the last header: how the file looked before it was read, and the salt of the `-wal` then. */
  #known: { stat: string; salt: number | undefined; header: Buffer | undefined };
  #examinedAt = Number.NEGATIVE_INFINITY;
  #examining: Promise<boolean> | undefined;

  private constructor(job: Job, signal: AbortSignal, identity: string | undefined) {
    this.#job = job;
    this.#signal = signal;
    this.#identity = identity;
    this.#known = { stat: statOf(job.dbpath), salt: walSalt(job.dbpath), header: undefined };
  }

  /** To be called before litestream opens the database. */
  static async begin(job: Job, signal: AbortSignal): Promise<DatabaseWatch> {
    const watch = new DatabaseWatch(job, signal, identityOf(job.dbpath));
    const header = await headerOf(job, signal);
    if (header?.length === HEADER) watch.#known.header = header;
    return watch;
  }

  /** To be called once litestream has replicated: it keeps the `-wal` open from there on, so that nobody removes that. */
  opened(): void {
    this.#wal ??= identityOf(`${this.#job.dbpath}-wal`);
  }

  /** By `stat` alone. */
  get isGone(): boolean {
    const { dbpath } = this.#job;
    if (identityOf(dbpath) !== this.#identity) return true;
    return this.#wal !== undefined && identityOf(`${dbpath}-wal`) !== this.#wal;
  }

  /** With a look into the file where a checkpoint, or another program, has written to it. What can't be read tells nothing. Never rejects. */
  async isReplaced({ atOnce = false } = {}): Promise<boolean> {
    return await this.#isReplaced(atOnce).catch(() => false);
  }

  async #isReplaced(atOnce: boolean): Promise<boolean> {
    if (this.isGone) return true;
    // The salt first: what comes into the file after this look is then from this -wal, or a later one.
    const salt = walSalt(this.#job.dbpath);
    if (statOf(this.#job.dbpath) === this.#known.stat) {
      this.#known.salt = salt;
      return false;
    }
    if (!atOnce && performance.now() - this.#examinedAt < BETWEEN_EXAMS_MS) return false;
    this.#examining ??= this.#examine().finally(() => {
      this.#examinedAt = performance.now();
      this.#examining = undefined;
    });
    return await this.#examining;
  }

  async #examine(): Promise<boolean> {
    for (let tries = 2; tries > 0; tries -= 1) {
      const { dbpath } = this.#job;
      const [stat, salt] = [statOf(dbpath), walSalt(dbpath)];
      const header = await headerOf(this.#job, this.#signal);
      if (this.isGone) return true;
      if (header === undefined) return false;
      const goesOn = salt !== undefined && salt === this.#known.salt;
      const inWal = isInWal(dbpath, header);
      const complete = goesOn && inWal !== undefined && walSalt(dbpath) === salt;
      const origin = inWal ? "wal" : complete ? "nowhere" : "unknown";
      if (!isAnother(this.#known.header, header, origin)) {
        this.#known = { stat, salt, header: header.length === HEADER ? header : undefined };
        return false;
      }
      if (tries > 1) await pause(AGAIN_MS, this.#signal);
    }
    return !this.#signal.aborted;
  }
}

/** How the main file looks: a checkpoint changes it, and so does who copies another file over it. */
export function statOf(dbpath: string): string {
  const stat = lstatSync(dbpath, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "" : `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}`;
}

const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** The first bytes of the main file, read by another process; fewer where it is shorter, `undefined` where that can't be. */
async function headerOf(job: Job, signal: AbortSignal): Promise<Buffer | undefined> {
  const { dbpath, env, redact } = job;
  const args = ["-A", "n", "-v", "-t", "x1", "-N", String(HEADER), dbpath];
  return await withLimit(EXAM_SECONDS, signal, async (limit) => {
    const how = { env: { PATH: env.PATH }, signal: limit, redact, logger: SILENT, capture: 16 * HEADER };
    const { exitCode, stdout } = await startChild("od", args, how).ended;
    const hex = stdout.replaceAll(/\s/g, "");
    return exitCode === 0 && /^(?:[0-9a-f]{2})*$/.test(hex) ? Buffer.from(hex, "hex") : undefined;
  }).catch(() => undefined);
}

/** Whether a frame of the `-wal` begins with these bytes, as the first page; `undefined` where it is too long, or none. */
function isInWal(dbpath: string, header: Buffer): boolean | undefined {
  try {
    const fd = openSync(`${dbpath}-wal`, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const [head, frame] = [Buffer.alloc(32), Buffer.alloc(24 + HEADER)];
      if (readSync(fd, head, 0, head.length, 0) < head.length) return undefined;
      const size = 24 + head.readUInt32BE(8);
      const count = Math.floor((fstatSync(fd).size - head.length) / size);
      if (count > MOST_FRAMES) return undefined;
      for (let i = count - 1; i >= 0; i -= 1) {
        readSync(fd, frame, 0, frame.length, head.length + i * size);
        if (frame.readUInt32BE(0) === 1 && frame.subarray(24).equals(header)) return true;
      }
      return false;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined; // there is none, or it is not to be read
  }
}
