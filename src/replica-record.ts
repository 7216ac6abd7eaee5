import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { recordFile } from "./database-files.ts";

/** How far a replica has come: a text that sorts as it goes on, for each generation (0.3), or one for all (0.5). */
export type Position = Readonly<Record<string, string>>;

/** What a machine knows of a replica, in `.NAME-litestream-s3` beside the database. */
export interface ReplicaRecord {
  /** Which replica it is, so that another one is never confused with it. */
  readonly replica: string;
  /** How far that had come when it was restored from, or last written to. */
  readonly position: Position;
  /** Whether an upload has begun since, of which nobody knows how far it came. */
  readonly uploading: boolean;
}

/** `undefined` where there is none for this replica, or it can't be read. */
export function readRecord(dbpath: string, replica: string): ReplicaRecord | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(recordFile(dbpath), "utf8"));
    return isRecord(record) && record.replica === replica ? record : undefined;
  } catch {
    return undefined;
  }
}

/** In one piece: a kill leaves the old one or the new one. */
export function writeRecord(dbpath: string, record: ReplicaRecord): void {
  const file = recordFile(dbpath);
  const unfinished = `${file}.tmp`;
  try {
    writeFileSync(unfinished, JSON.stringify(record), { mode: 0o600 });
    renameSync(unfinished, file);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
}

function isRecord(value: unknown): value is ReplicaRecord {
  if (typeof value !== "object" || value === null) return false;
  const { replica, position, uploading } = value as Record<string, unknown>;
  return (
    typeof replica === "string" &&
    typeof uploading === "boolean" &&
    typeof position === "object" &&
    position !== null &&
    Object.values(position).every((end) => typeof end === "string")
  );
}
