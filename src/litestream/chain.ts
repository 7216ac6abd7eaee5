import type { Job } from "./binary.ts";
import { startChild } from "./child.ts";
import { type Chain, chainOf, complaintOf, type Dialect } from "./dialect.ts";

/**
 * Whether what the replica holds can be restored, as far as its list tells: an object that is missing (a lifecycle
 * rule, somebody's hand) makes litestream 0.5 fail, or find nothing, at the next restore, but not at an upload.
 * @returns the words of the failure where it could not be told
 */
export async function lookAtChain(
  job: Job,
  dialect: Dialect,
  signal: AbortSignal,
): Promise<Chain | { words: string }> {
  if (dialect.list === undefined) return "whole";
  const child = startChild(job.binary, dialect.list(job.s3), { ...job, signal, capture: LIST_LIMIT });
  const { exitCode, stdout, lines } = await child.ended;
  const chain = exitCode === 0 ? chainOf(stdout) : undefined;
  if (chain !== undefined) return chain;
  const { words, said } = complaintOf(lines, [job.dbpath, job.s3]);
  return { words: said && exitCode !== 0 ? words : "the list of the replica's objects could not be read" };
}

/** In characters; a line has about 80. A longer list has lost its header, and counts as one that can't be read. */
const LIST_LIMIT = 16 * 1024 * 1024;
