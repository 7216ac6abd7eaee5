import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parse } from "dotenv";
import { z } from "zod";
import { ConfigError, type ConfigIssue, InvalidOptionError, messageOf } from "./errors.ts";

/** The settings as a caller may give them; what is left out comes from the environment, then `.env`. */
export interface SettingsInput {
  /** Access key id. Environment: `LITESTREAM_ACCESS_KEY_ID`. Never shown. */
  key: string;
  /** Secret access key. Environment: `LITESTREAM_SECRET_ACCESS_KEY`. Never shown. */
  token: string;
  /** Where the backup is: `s3://BUCKET/PATH`, 100 characters at most, no credentials. Environment: `REPLICA_URL`. */
  s3: string;
  /** The folder of the database. Environment: `DB_FOLDER`. Default: `data` in the working directory. */
  folder: string;
  /** The file name of the database, ending in `.sqlite` or `.db`, 50 characters at most. Environment: `DB_SQLITE`. Default: `db.sqlite`. */
  db: string;
  /** The address of an S3-compatible store: `https://HOST`. Environment: `REPLICA_ENDPOINT`. Default: what the URL says, else AWS. */
  endpoint?: string | undefined;
  /**
   * The region of the bucket. Environment: `REPLICA_REGION`. Default: what the URL or `AWS_REGION` says, else litestream asks AWS,
   * and takes `us-east-1` for another store (its s3/replica_client.go, the same in 0.3.14 and 0.5.17).
   */
  region?: string | undefined;
  /**
   * How far back `restore({ timestamp })` can go at least, in hours; what is older may be removed from the replica, so that
   * boots and the bucket stay small. Environment: `REPLICA_HISTORY_HOURS`. Default: 24.
   */
  historyHours?: number | undefined;
}

/** The settings once they are complete. */
export type Settings = SettingsInput & { readonly historyHours: number };

export type Environment = Record<string, string | undefined>;

const ENV_NAMES = {
  key: "LITESTREAM_ACCESS_KEY_ID",
  token: "LITESTREAM_SECRET_ACCESS_KEY",
  s3: "REPLICA_URL",
  folder: "DB_FOLDER",
  db: "DB_SQLITE",
  endpoint: "REPLICA_ENDPOINT",
  region: "REPLICA_REGION",
  historyHours: "REPLICA_HISTORY_HOURS",
} as const satisfies Record<keyof SettingsInput, string>;

const FIELDS = Object.keys(ENV_NAMES) as (keyof SettingsInput)[];

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
const CONTROL = /[\u0000-\u001f\u007f]/;
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]*(?::\d{1,5})?$/;
// Also where a slash in the secret makes the rest of it, and the bucket, look like a path.
const USER_AND_SECRET = /^s3:\/\/[^@]*:[^@]*@/;
// litestream 0.5 takes parameters behind the URL; a secret there would stand in argv.
const SECRET_PARAMETER = /[?&#][^=]*(key|secret|token|password|credential)[^=]*=/i;

/** A string that passes each check in turn; the first that fails is the one that is reported. */
function text(...checks: readonly [passes: (value: string) => boolean, problem: string][]) {
  return z.string({ error: "must be a string" }).superRefine((value, context) => {
    const failed = checks.find(([passes]) => !passes(value));
    if (failed) context.addIssue({ code: "custom", message: failed[1] });
  });
}

const noControl = [
  (value: string) => !CONTROL.test(value),
  "must not contain a newline, NUL or other control character",
] as const satisfies [(value: string) => boolean, string];

// It has no UTF-8: what reaches the file system and litestream would be another string.
const wholeCharacters = [
  (value: string) => !/\p{Surrogate}/u.test(value),
  "must not contain half a character (a lone surrogate)",
] as const satisfies [(value: string) => boolean, string];

// SQLite's URIs and litestream's Go driver take these for the end of the name, or for an escape.
const plainPath = [
  (value: string) => !/[?#%]/.test(value),
  "must not contain ?, # or %: litestream would open another file",
] as const satisfies [(value: string) => boolean, string];

/** Whether the URL leads to a place of its own inside the bucket, which every store and litestream see as the same one. */
function hasPath(url: string): boolean {
  const [, ...segments] = (url.slice("s3://".length).split("?", 1)[0] ?? "").split("/");
  return segments.some(Boolean) && !segments.some((segment) => segment === "." || segment === "..");
}

/** Whether the escapes in the URL are whole, and hide no control character. */
function decodes(url: string): boolean {
  try {
    return !CONTROL.test(decodeURIComponent(url));
  } catch {
    return false;
  }
}

/** A hundred years: what litestream can count in nanoseconds. */
const MAX_HOURS = 876_000;
const DEFAULT_HOURS = 24;
const HOURS = `must be a number of hours, 0 to ${MAX_HOURS}`;

/** A shorter secret, as a store for tests has it, may well be a part of some name. */
const RECOGNISABLE = 16;

/** The settings that are shown, and have the secret in them: pasted into the wrong place. */
function withSecret({ token, ...shown }: SettingsInput): ConfigIssue[] {
  if (token.length < RECOGNISABLE) return [];
  const forms = [token, encodeURIComponent(token)];
  return (["s3", "folder", "db", "endpoint", "region"] as const)
    .filter((field) => forms.some((form) => shown[field]?.includes(form)))
    .map((field) => ({ name: ENV_NAMES[field], problem: `must not contain ${ENV_NAMES.token}` }));
}

/**
 * Where else a database may be restored to, made absolute.
 * @throws InvalidOptionError where litestream or SQLite would take it for something else, or where it shows the secret
 */
export function assertPath(path: unknown, token: string): string {
  const problem = OtherPath.safeParse(path).error?.issues[0]?.message;
  if (problem !== undefined) throw new InvalidOptionError(`\`to\` ${problem}.`);
  const shown = path as string;
  if (token.length >= RECOGNISABLE && [token, encodeURIComponent(token)].some((form) => shown.includes(form)))
    throw new InvalidOptionError(`\`to\` must not contain ${ENV_NAMES.token}.`);
  return resolve(shown);
}

const OtherPath = text(
  [(path) => /[^/]$/.test(path) && !/(?:^|\/)\.\.?$/.test(path), "must name a file"],
  noControl,
  wholeCharacters,
  plainPath,
  [(path) => !/-(?:wal|shm|journal)$/.test(path), "must not end as SQLite's own files beside a database do"],
);

/** Whether it is `http(s)://HOST[:PORT][/PATH]`, as both litestreams take it, and no more. */
function isAddress(endpoint: string): boolean {
  return /^https?:\/\/[^/?#@\s]+(?:\/[^?#@\s]*)?$/.test(endpoint) && URL.canParse(endpoint);
}

const bucketOf = (url: string) => url.slice("s3://".length).split(/[/?#]/, 1)[0] ?? "";

const Schema = z.object({
  key: text(noControl, wholeCharacters),
  token: text(noControl, wholeCharacters),
  s3: text(
    [(url) => url.length <= 100, "must be 100 characters at most"],
    noControl,
    wholeCharacters,
    [(url) => /^s3:\/\/.*$/.test(url), "must look like s3://bucket/path"],
    [
      (url) => !bucketOf(url).includes("@") && !USER_AND_SECRET.test(url) && !SECRET_PARAMETER.test(url),
      "must not carry credentials: set LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY instead",
    ],
    [(url) => bucketOf(url) !== "", "names no bucket: it must look like s3://bucket/path"],
    [
      (url) => BUCKET.test(bucketOf(url)) && !/\s/.test(url),
      "must look like s3://bucket/path, without spaces",
    ],
    [hasPath, "names no path in the bucket: it must look like s3://bucket/path"],
    [(url) => !url.includes("#") && decodes(url), "must not contain # or a broken % escape"],
  ),
  endpoint: text(
    [(address) => address.length <= 200, "must be 200 characters at most"],
    noControl,
    wholeCharacters,
    [
      (address) => !address.includes("@"),
      "must not carry credentials: set LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY instead",
    ],
    [isAddress, "must look like https://host, without a bucket or parameters"],
  ).optional(),
  region: text([
    (region) => /^[A-Za-z0-9-]{1,50}$/.test(region),
    "must be a region's name, such as eu-central-1 or auto",
  ]).optional(),
  historyHours: z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^\d+(?:\.\d+)?$/)
          .transform(Number),
      ],
      { error: HOURS },
    )
    .pipe(z.number({ error: HOURS }).min(0, { error: HOURS }).max(MAX_HOURS, { error: HOURS })),
  folder: text(noControl, wholeCharacters, plainPath),
  db: text(
    [(name) => name.length <= 50, "must be 50 characters at most"],
    noControl,
    wholeCharacters,
    [(name) => !/[/\\]/.test(name), "must be a plain file name; the folder is DB_FOLDER"],
    plainPath,
    [
      (name) => /^[a-z]{1,20}.*\.(sqlite|db)$/.test(name),
      "must begin with a small letter and end in .sqlite or .db",
    ],
  ),
});

/** Reads the settings: constructor > environment > env file > defaults; an empty value counts as missing. */
export function readSettings(
  given: Partial<SettingsInput>,
  environment: Environment,
  fromFile: Environment,
): Settings {
  if (typeof given !== "object" || given === null) {
    throw new ConfigError([{ name: "settings", problem: "must be an object such as { db: 'app.sqlite' }" }]);
  }
  const { own, unknown } = valuesOf(given);
  const merged: Record<string, unknown> = { folder: "data", db: "db.sqlite", historyHours: DEFAULT_HOURS };
  for (const [field, name] of Object.entries(ENV_NAMES)) {
    const value =
      own[field] === undefined || own[field] === "" ? environment[name] || fromFile[name] : own[field];
    if (value !== undefined && value !== "") merged[field] = value;
  }
  if (typeof merged.folder === "string") merged.folder = absolute(merged.folder);
  const parsed = Schema.safeParse(merged);
  if (!parsed.success || unknown.length > 0) {
    throw new ConfigError([
      ...unknown.map((name) => ({ name, problem: `is no setting; there are ${FIELDS.join(", ")}` })),
      ...(parsed.error?.issues ?? []).map((issue) => explain(issue, merged)),
    ]);
  }
  const leaking = withSecret(parsed.data);
  if (leaking.length > 0) throw new ConfigError(leaking);
  return parsed.data;
}

function absolute(folder: string): string {
  try {
    return resolve(folder);
  } catch (error) {
    const problem = `is relative to the working directory, which is gone: ${messageOf(error)}`;
    throw new ConfigError([{ name: ENV_NAMES.folder, problem }], { cause: error });
  }
}

/**
 * The environment, once it is known to be one.
 * @throws ConfigError for a value that is no string
 */
export function stringsOf(environment: Environment): Environment {
  const wrong = Object.keys(environment).filter(
    (name) => environment[name] !== undefined && typeof environment[name] !== "string",
  );
  if (wrong.length > 0) throw new ConfigError(wrong.map((name) => ({ name, problem: "must be a string" })));
  return environment;
}

/** Reads each value once: a getter may throw, and without its error as a cause, which may quote a value. */
function valuesOf(given: Partial<SettingsInput>): { own: Record<string, unknown>; unknown: string[] } {
  try {
    return {
      own: Object.fromEntries(FIELDS.map((field) => [field, given[field]])),
      unknown: Object.keys(given).filter((name) => !(FIELDS as string[]).includes(name)),
    };
  } catch {
    throw new ConfigError([{ name: "settings", problem: "can't be read: a getter or proxy throws" }]);
  }
}

/** zod's issue in the words of the environment, without zod's error as a cause: it may quote a value. */
function explain(issue: z.core.$ZodIssue, merged: Record<string, unknown>): ConfigIssue {
  const field = issue.path[0] as keyof SettingsInput;
  const missing = merged[field] === undefined;
  return {
    name: ENV_NAMES[field],
    problem: missing
      ? `is missing: set it in the environment, in .env, or as \`${field}\` in the constructor`
      : issue.message,
  };
}

/**
 * Reads the env file without touching `process.env`.
 * @param file `undefined`: `.env` in the working directory, which may be missing. `false`: none.
 * @throws ConfigError when a named file, or one that is there, can't be read.
 */
export function readEnvFile(file: string | false | undefined): Environment {
  if (file === false) return {};
  try {
    return parse(readFileSync(file ?? ".env"));
  } catch (error) {
    if (file === undefined && (error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new ConfigError([{ name: "envFile", problem: `can't be read: ${messageOf(error)}` }], {
      cause: error,
    });
  }
}
