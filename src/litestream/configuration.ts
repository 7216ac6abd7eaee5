import { closeSync } from "node:fs";
import { nameless } from "../database-files.ts";
import type { Job } from "./binary.ts";
import { type Child, type ChildOptions, startChild } from "./child.ts";
import { configurationOf } from "./dialect.ts";

type Options = Pick<ChildOptions, "signal"> & Partial<Pick<ChildOptions, "env" | "onLine" | "capture">>;

/**
 * Starts litestream with its configuration. That is a file which has lost its name before litestream reads it from its
 * stdin: there is nothing to remove afterwards. No pipe: Node's are sockets, which litestream can't open by name.
 * @throws FileSystemError where there is no room for it; LitestreamError as `startChild`
 */
export function startLitestream(job: Job, args: readonly string[], options: Options): Child {
  const fd = nameless(job.dbpath, configurationOf(job));
  try {
    return startChild(job.binary, args, { ...job, ...options, stdin: fd });
  } finally {
    closeSync(fd);
  }
}
