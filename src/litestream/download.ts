import type { RestoreTarget } from "../database-files.ts";
import { LitestreamUnsupportedError, type RestoreError } from "../errors.ts";
import { lookAtRestored } from "../restored-file.ts";
import type { Job, Litestream } from "./binary.ts";
import { lookAtChain } from "./chain.ts";
import { startChild } from "./child.ts";
import { startLitestream } from "./configuration.ts";
import {
  checksIntegrity,
  complaintOf,
  type Dialect,
  mayPass,
  NO_BACKUP,
  NO_STATE,
  RESTORE_HELP,
  type RestoreHow,
  restoreArgs,
  type StateAt,
} from "./dialect.ts";
import { LIST_LIMIT } from "./writers.ts";

/** Why there is no file. */
export interface Failed {
  readonly reason: RestoreError["reason"];
  readonly words: string;
  /** Default: what goes with the reason. */
  readonly advice?: string | undefined;
  /** Whether another try may mend it. */
  readonly passes: boolean;
}

export interface Wanted extends Pick<RestoreHow, "ifReplicaExists" | "integrityCheck"> {
  /** Default: the newest state. */
  readonly moment?: Date | undefined;
}

const INCOMPLETE =
  "the replica holds objects of a backup, but its beginning is missing, perhaps taken by a lifecycle rule of the bucket; " +
  "bring them back, or use another REPLICA_URL to begin anew";
const VANISHED =
  "litestream found no backup, although there is one: objects have vanished meanwhile, as by a compaction";
const NO_LIST = "the list of what the replica holds could not be read";

const DAMAGED =
  "It was not put into place. An older state may be whole: restore it with `timestamp`, to another path by `to`; and remove nothing from the replica.";
const SURPLUS =
  "the restored file goes on behind its last page, as its original must have: SQLite ignores that";

/** @throws LitestreamUnsupportedError where this litestream can't check what it has restored */
export async function assertIntegrityCheck(
  job: Job,
  { file, version }: Litestream,
  signal: AbortSignal,
): Promise<void> {
  const { stdout, stderr } = await startChild(file, RESTORE_HELP, { ...job, signal, capture: 65_536 }).ended;
  if (signal.aborted) throw signal.reason;
  if (checksIntegrity(stdout + stderr)) return;
  throw new LitestreamUnsupportedError(
    `litestream ${version} (${file}) knows no \`integrityCheck\`: leave that out, or upgrade to 0.5.10 or newer.`,
  );
}

/**
 * Has litestream write the target.
 * @returns its size in bytes; `undefined` where the replica holds no backup and that is fine; with the signal, a failure
 */
export async function download(
  job: Job,
  dialect: Dialect,
  target: RestoreTarget,
  { moment, ifReplicaExists = false, integrityCheck }: Wanted,
  signal: AbortSignal,
): Promise<Failed | { readonly size: number | undefined }> {
  const state = moment && (await stateAt(job, dialect, moment, signal));
  if (state !== undefined && "reason" in state) return state;
  const since = state?.since;
  // What is not there at some moment is no first boot.
  const how = { ifReplicaExists: ifReplicaExists && since === undefined, integrityCheck, state: state?.args };
  const env = { ...job.env, ...dialect.env };
  const child = startLitestream(job, restoreArgs(target.path, job.dbpath, how), { env, signal });
  const noBackup = child.line(NO_BACKUP);
  const end = await child.ended;
  if (signal.aborted || end.exitCode !== 0) {
    const complaint = complaintOf(end.lines, [job.dbpath, job.s3]);
    if (moment && since && NO_STATE.test(complaint.words)) {
      const words = `the replica holds no state of ${moment.toISOString()}: the first one is of ${secondOf(since)}`;
      return failed("no-backup", words, "Choose a later `timestamp`.");
    }
    if (complaint.reason === "no-backup" && !moment && !signal.aborted && dialect.list !== undefined) {
      const look = await lookAtChain(job, dialect, signal);
      if ("chain" in look && look.chain === "whole") return vanished();
    }
    const words = complaint.words || "litestream ended without a word";
    return { ...failed(complaint.reason, words), passes: mayPass(complaint) };
  }
  const { size } = target;
  if (size === undefined && how.ifReplicaExists && (await noBackup) !== undefined) {
    // 0.5 says the same where the beginning of the backup is missing.
    const look = await lookAtChain(job, dialect, signal);
    if ("words" in look) return failed("failed", look.words);
    if (dialect.list !== undefined && look.chain === "whole") return vanished();
    return dialect.list !== undefined && look.chain !== "none"
      ? failed("failed", INCOMPLETE)
      : { size: undefined };
  }
  if (!size) return failed("failed", "litestream says that it succeeded, but left no database");
  const { damage, surplus } = lookAtRestored(target.path);
  if (damage !== undefined) return failed("failed", damage, DAMAGED);
  if (surplus !== undefined) job.logger.warn({ bytes: surplus }, SURPLUS);
  await target.sync();
  if (state?.at) job.logger.info({ s3: job.s3, at: secondOf(state.at) }, "this is the state as of then");
  return { size };
}

/** Finds the state of a moment. */
async function stateAt(
  job: Job,
  { moment: { args, of }, listing }: Dialect,
  moment: Date,
  signal: AbortSignal,
): Promise<StateAt | Failed> {
  const child = startLitestream(job, args(job.dbpath), { signal, capture: LIST_LIMIT }, listing);
  const { exitCode, stdout, stderr, lines } = await child.ended;
  const state = exitCode === 0 ? of(stdout, stderr, moment) : undefined;
  if (state === undefined) {
    const complaint = complaintOf(lines, [job.dbpath, job.s3]);
    const { reason, words, said } = complaint;
    return { ...failed(reason, said || reason !== "failed" ? words : NO_LIST), passes: mayPass(complaint) };
  }
  if (!state.broken) return state;
  const before = state.at === undefined ? "" : `: the last whole state before is of ${secondOf(state.at)}`;
  return failed("failed", `objects of the backup are missing in the replica${before}`);
}

const failed = (reason: Failed["reason"], words: string, advice?: string): Failed => ({
  reason,
  words,
  advice,
  passes: false,
});

/** 0.5.18 plans anew by itself where an object has gone, and says that there is no backup where its transaction went too. */
const vanished = (): Failed => ({ ...failed("failed", VANISHED), passes: true });

const secondOf = (date: Date) => date.toISOString().replace(".000Z", "Z");
