export { type ConfigOptions, ConfigS3 } from "./config-s3.ts";
export {
  ConfigError,
  type ConfigIssue,
  DatabaseExistsError,
  DatabaseNotFoundError,
  type FailureReason,
  FileSystemError,
  InvalidOptionError,
  LitestreamError,
  LitestreamNotFoundError,
  LitestreamUnsupportedError,
  RestoreError,
} from "./errors.ts";
export type { ReplicateFailure, ReplicateOptions, ReplicateResult } from "./litestream/replicate.ts";
export type { RestoreOptions } from "./litestream/restore.ts";
export type { Logger } from "./logger.ts";
export type { SettingsInput } from "./settings.ts";
export type { ShutdownOptions } from "./shutdown.ts";
