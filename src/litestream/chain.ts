import type { Job } from "./binary.ts";
import { startLitestream } from "./configuration.ts";
import {
  type Chain,
  chainOf,
  complaintOf,
  type Dialect,
  objectsOf,
  type ReplicaObject,
  type Written,
} from "./dialect.ts";
import { LIST_LIMIT, ownPosition } from "./writers.ts";

/**
 * Whether what the replica holds can be restored, as far as its list tells: an object that is missing (a lifecycle
 * rule, somebody's hand) makes litestream 0.5 fail, find nothing, or find an old state at the next restore, but not at an
 * upload.
 * @param written what a call has written, so that a restore must give that
 * @returns with all objects of a 0.5 replica; the words of the failure where it could not be told
 */
export async function lookAtChain(
  job: Job,
  dialect: Dialect,
  signal: AbortSignal,
  written?: Omit<Written, "position">,
): Promise<{ chain: Chain; objects: readonly ReplicaObject[] } | { words: string }> {
  if (dialect.list === undefined) return { chain: "whole", objects: [] };
  const own = ownPosition(job.dbpath)[""];
  const position = written && own !== undefined ? BigInt(`0x${own}`) : undefined;
  if (written && position === undefined) return { words: "litestream's own position could not be read" };
  const child = startLitestream(job, dialect.list(job.dbpath), { signal, capture: LIST_LIMIT });
  const { exitCode, stdout, lines } = await child.ended;
  const end = written && position !== undefined ? { ...written, position } : undefined;
  const chain = exitCode === 0 ? chainOf(stdout, end) : undefined;
  if (chain !== undefined) return { chain, objects: objectsOf(stdout) ?? [] };
  const { words, said } = complaintOf(lines, [job.dbpath, job.s3]);
  return { words: said && exitCode !== 0 ? words : "the list of the replica's objects could not be read" };
}
