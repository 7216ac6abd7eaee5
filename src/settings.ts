import { resolve } from "node:path";
import { type EnvFile, suspicionsOf } from "./env-file.ts";
import { ConfigError, type ConfigIssue, InvalidOptionError, messageOf } from "./errors.ts";
import { doubtsOf, meantByEndpoint, parametersOf } from "./replica-url.ts";
import { checkEndpoint, checkPath, checkRegion, checkSettings, type Problem } from "./settings-schema.ts";
import { isUnexpanded } from "./unexpanded.ts";

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
export type Settings = SettingsInput & {
  readonly historyHours: number;
  /** What looks wrong with them and yet may be right, as sentences without a secret: for when the store refuses them. */
  readonly hints: readonly string[];
};

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

const DEFAULT_HOURS = 24;

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
  const [problem] = checkPath(path).problems;
  if (problem !== undefined) throw new InvalidOptionError(`\`to\` ${problem.problem}.`);
  const shown = path as string;
  if (token.length >= RECOGNISABLE && [token, encodeURIComponent(token)].some((form) => shown.includes(form)))
    throw new InvalidOptionError(`\`to\` must not contain ${ENV_NAMES.token}.`);
  return resolve(shown);
}

/** Reads the settings: constructor > environment > env file > defaults; an empty value counts as missing. */
export function readSettings(
  given: Partial<SettingsInput>,
  environment: Environment,
  { values, cut }: EnvFile,
): Settings {
  if (typeof given !== "object" || given === null) {
    throw new ConfigError([{ name: "settings", problem: "must be an object such as { db: 'app.sqlite' }" }]);
  }
  const { own, unknown } = valuesOf(given);
  const merged: Record<string, unknown> = { folder: "data", db: "db.sqlite", historyHours: DEFAULT_HOURS };
  /** The fields whose value, which may be empty, is what is left of one in the file. */
  const cutFields = new Set<string>();
  for (const [field, name] of Object.entries(ENV_NAMES)) {
    const fromFile = (own[field] === undefined || own[field] === "") && !environment[name];
    const value =
      own[field] === undefined || own[field] === "" ? environment[name] || values[name] : own[field];
    if (value !== undefined && value !== "") merged[field] = value;
    if (fromFile && cut.has(name)) cutFields.add(field);
  }
  const { folder } = merged;
  if (typeof folder === "string" && !isUnexpanded(folder)) merged.folder = absolute(folder);
  const { value: complete, problems } = checkSettings(merged);
  const shortened = SHORTENED.filter((field) => cutFields.has(field) && values[ENV_NAMES[field]] !== "");
  if (complete === undefined || unknown.length > 0 || shortened.length > 0) {
    const isShortened = ({ field }: Problem) => (shortened as readonly string[]).includes(field);
    throw new ConfigError([
      ...unknown.map((name) => ({ name, problem: `is no setting; there are ${FIELDS.join(", ")}` })),
      ...shortened.map((field) => ({
        name: ENV_NAMES[field],
        problem: `${CUT}: leave it out, or put a space before it`,
      })),
      ...problems
        .filter((problem) => !isShortened(problem))
        .map((problem) => explain(problem, merged, cutFields)),
    ]);
  }
  const leaking = withSecret(complete);
  if (leaking.length > 0) throw new ConfigError(leaking);
  const settings = withParameters(complete);
  assertNoBucketIn(settings);
  return { ...settings, hints: hintsOf(settings, cutFields) };
}

const CUT = "has a # right behind its value in the env file, where a comment begins";
/** Cut short, these would name another place, and none of them may have a # in it. */
const SHORTENED = ["s3", "folder", "db"] as const;

/** A problem in the words of the environment. What was meant is left out if it shows a part of the key or the secret. */
function explain(
  { field, problem, meant = "" }: Problem,
  merged: Record<string, unknown>,
  cutFields: ReadonlySet<string>,
) {
  const name = ENV_NAMES[field as keyof SettingsInput];
  const value = merged[field];
  if (value === undefined) {
    const why = cutFields.has(field)
      ? "is missing, since its value in the env file begins with a #: put it into quotes, or "
      : "is missing: ";
    return {
      name,
      problem: `${why}set it in the environment, in .env, or as \`${field}\` in the constructor`,
    };
  }
  const secrets = [merged.key, merged.token].filter((secret) => typeof secret === "string");
  const encoded = (secret: string) => encodeURIComponent(secret.replace(/\p{Surrogate}/gu, ""));
  const shows = secrets.some((secret) => meant.includes(secret) || meant.includes(encoded(secret)));
  const also = typeof value === "string" && EXPLAINED.has(field) ? suspicionsOf(value) : [];
  const odd = also.length === 0 ? "" : ` (it ${also.join(" and ")})`;
  return { name, problem: `${problem}${shows ? "" : meant}${odd}` };
}

/** Where an odd character may be what makes them unusable. */
const EXPLAINED: ReadonlySet<string> = new Set(["s3", "endpoint", "region", "db"]);

type Complete = Omit<Settings, "hints">;

/** With what litestream 0.5 would take from the URL's parameters, and 0.3 would ignore there, as settings. */
function withParameters(settings: Complete): Complete {
  const { s3, ...asked } = parametersOf(settings.s3);
  const issues: ConfigIssue[] = [];
  for (const [field, check] of [
    ["endpoint", checkEndpoint],
    ["region", checkRegion],
  ] as const) {
    const value = asked[field];
    if (value === undefined) continue;
    const [problem] = check(value).problems;
    if (problem !== undefined)
      issues.push({ name: ENV_NAMES.s3, problem: `its parameter ${field} ${problem.problem}` });
    else if (settings[field] !== undefined && withoutSlash(settings[field]) !== withoutSlash(value))
      issues.push({
        name: ENV_NAMES.s3,
        problem: `its parameter ${field} says otherwise than ${ENV_NAMES[field]}: leave one of them out`,
      });
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return { ...settings, s3, ...asked };
}

const withoutSlash = (address: string) => address.replace(/\/+$/, "");

/** @throws ConfigError if the store's address has the bucket in it, so that requests would name the bucket twice */
function assertNoBucketIn({ s3, endpoint }: Complete): void {
  const meant = endpoint === undefined ? undefined : meantByEndpoint(endpoint, s3);
  if (meant === undefined) return;
  const problem = `must not have the bucket in it, which REPLICA_URL names: set REPLICA_ENDPOINT=${meant}`;
  throw new ConfigError([{ name: ENV_NAMES.endpoint, problem }]);
}

function hintsOf(settings: Complete, cutFields: ReadonlySet<string>): string[] {
  const cut = (["key", "token", "endpoint", "region"] as const)
    .filter((field) => cutFields.has(field))
    .map((field) => `${ENV_NAMES[field]} ${CUT}: if that is not meant, put the whole value into quotes.`);
  const odd = (["token", "s3", "endpoint"] as const).flatMap((field) =>
    suspicionsOf(settings[field] ?? "").map((words) => `${ENV_NAMES[field]} ${words}: copy it again.`),
  );
  return [...cut, ...odd, ...doubtsOf(settings.s3, settings.endpoint)];
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
