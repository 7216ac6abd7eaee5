import type { Job } from "./litestream/binary.ts";
import type { ReplicateOptions } from "./litestream/replicate.ts";
import { processState } from "./process-state.ts";

/** A database, and how it is brought into its replica. */
export interface Database extends Pick<Job, "dbpath" | "s3" | "endpoint" | "region" | "logger" | "redact"> {
  /** Whether the logger is the library's own, which writes to stderr at once. */
  readonly isOwnLogger: boolean;
  /** Says in the log what came of it; false: not proven. */
  prove(options: ReplicateOptions): Promise<boolean>;
}

export interface Registration {
  readonly database: Database;
  readonly timeoutSeconds: number;
  readonly keepLocal: boolean;
  readonly close: () => unknown;
}

/** What is to be done for one database and one replica. */
export interface Task extends Pick<Registration, "database" | "timeoutSeconds" | "keepLocal"> {
  doing: string;
}

/** A shutdown that a signal has begun. */
export interface UnderWay {
  readonly start: number;
  readonly open: Set<Task>;
  counted: number;
  warned: boolean;
}

interface Shutdown {
  readonly registered: Set<Registration>;
  underWay: UnderWay | undefined;
  /** The listeners, of the copy of the package that was first. */
  onSignal: ((signal: NodeJS.Signals) => void) | undefined;
  onExit: ((code: number) => void) | undefined;
  /** The library itself ends the process, and has said what there was to say. */
  ending: boolean;
}

/** One shutdown a process, also if the package is loaded twice: the first one's end would cut the other one's proof. */
export const shutdown = processState(
  "shutdown",
  (): Shutdown => ({
    registered: new Set(),
    underWay: undefined,
    onSignal: undefined,
    onExit: undefined,
    ending: false,
  }),
);

/** Not everything is proven. */
export const UNPROVEN = 1;

/** Ends the process, whatever else keeps it alive, such as a server that was not closed. */
export function endProcess(code = process.exitCode): void {
  shutdown.ending = true;
  process.exit(code);
}
