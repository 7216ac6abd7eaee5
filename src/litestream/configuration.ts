import { closeSync } from "node:fs";
import { nameless } from "../database-files.ts";
import type { Job } from "./binary.ts";
import {
  type Child,
  type ChildOptions,
  type Supervised,
  type SupervisedOptions,
  startChild,
  startSupervised,
} from "./child.ts";
import { type Beyond, configurationOf } from "./dialect.ts";

type Options = Pick<ChildOptions, "signal"> & Partial<Pick<ChildOptions, "env" | "onLine" | "capture">>;

/**
 * Starts litestream with its configuration. That is a file which has lost its name before litestream reads it from its
 * stdin: there is nothing to remove afterwards. No pipe: Node's are sockets, which litestream can't open by name.
 * @throws FileSystemError where there is no room for it; LitestreamError as `startChild`
 */
export function startLitestream(job: Job, args: readonly string[], options: Options, beyond?: Beyond): Child {
  const fd = nameless(job.dbpath, configurationOf(job, beyond));
  try {
    return startChild(job.binary, args, { ...job, ...options, stdin: fd });
  } finally {
    closeSync(fd);
  }
}

/**
 * Starts a litestream that goes on, with its configuration and a log that has no name.
 * @throws FileSystemError where there is no room for them; LitestreamError as `startChild`
 */
export function startContinuous(
  job: Job,
  args: readonly string[],
  syncIntervalSeconds: number,
  options: Pick<SupervisedOptions, "env" | "keep" | "onLook" | "onLine">,
): Supervised {
  const stdin = nameless(job.dbpath, configurationOf(job, { continuous: { syncIntervalSeconds } }));
  try {
    const log = nameless(job.dbpath, "", "ax+");
    try {
      return startSupervised(job.binary, args, { ...job, ...options, stdin, log });
    } catch (error) {
      closeSync(log);
      throw error;
    }
  } finally {
    closeSync(stdin);
  }
}
