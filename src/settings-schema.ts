import { z } from "zod";
import { isLikeName, nameThatPasses, problemOfName } from "./database-name.ts";
import { suspicionsOf } from "./env-file.ts";
import { meantByAddress } from "./replica-url.ts";
import { isUnexpanded, meantByShell, UNEXPANDED } from "./unexpanded.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
const CONTROL = /[\u0000-\u001f\u007f]/;
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]*(?::\d{1,5})?$/;
// Also where a slash in the secret makes the rest of it, and the bucket, look like a path.
const USER_AND_SECRET = /^s3:\/\/[^@]*:[^@]*@/;
// litestream 0.5 takes parameters behind the URL; a secret there would stand in argv.
const SECRET_PARAMETER = /[?&#][^=]*(key|secret|token|password|credential)[^=]*=/i;

/** What a text must be; `meant`, of a value that is not: the end of the problem, which may show a part of the value. */
type Check = readonly [
  passes: (value: string) => boolean,
  problem: string | ((value: string) => string),
  meant?: (value: string) => string | undefined,
];

/** A string that passes each check in turn; the first that fails is the one that is reported. */
function text(...checks: readonly Check[]) {
  return z.string({ error: "must be a string" }).superRefine((value, context) => {
    const [, problem, meant] = checks.find(([passes]) => !passes(value)) ?? [];
    if (problem === undefined) return;
    const message = typeof problem === "string" ? problem : problem(value);
    context.addIssue({ code: "custom", message, params: { meant: meant?.(value) } });
  });
}

const noControl = [
  (value: string) => !CONTROL.test(value),
  "must not contain a newline, NUL or other control character",
] as const satisfies Check;

// It has no UTF-8: what reaches the file system and litestream would be another string.
const wholeCharacters = [
  (value: string) => !/\p{Surrogate}/u.test(value),
  "must not contain half a character (a lone surrogate)",
] as const satisfies Check;

// SQLite's URIs and litestream's Go driver take these for the end of the name, or for an escape.
const plainPath = [
  (value: string) => !/[?#%]/.test(value),
  "must not contain ?, # or %: litestream would open another file",
] as const satisfies Check;

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
const HOURS = `must be a number of hours, 0 to ${MAX_HOURS}`;

/** Whether it is `http(s)://HOST[:PORT][/PATH]`, as both litestreams take it, and no more. */
function isAddress(endpoint: string): boolean {
  return /^https?:\/\/[^/?#@\s]+(?:\/[^?#@\s]*)?$/.test(endpoint) && URL.canParse(endpoint);
}

const bucketOf = (url: string) => url.slice("s3://".length).split(/[/?#]/, 1)[0] ?? "";

/** What no access key has: it stands in a header of each request, in plain characters. */
const plainKey = [
  (value: string) => suspicionsOf(value).length === 0,
  (value: string) => `${suspicionsOf(value).join(" and ")}: copy it again`,
] as const satisfies Check;

const nothingLost = [
  (value: string) => !value.includes("\ufffd"),
  "has a \ufffd in it, in the place of a lost character: save the env file as UTF-8, and put the value in again",
] as const satisfies Check;

function meantUrl(url: string): string | undefined {
  const meant = meantByAddress(url);
  // Hosts are in small letters: what is not may be a key.
  if (meant === undefined || /[A-Z]/.test(url.slice("s3://".length).split("/", 1)[0] ?? "")) return undefined;
  const { s3, endpoint, region } = meant;
  if (endpoint !== undefined) return `: set REPLICA_ENDPOINT=${endpoint} and REPLICA_URL=${s3}`;
  const inRegion = region === undefined ? "" : ` and REPLICA_REGION=${region}`;
  return `: set REPLICA_URL=${s3}${inRegion}; for AWS without REPLICA_ENDPOINT`;
}

const Endpoint = text(
  [(address) => address.length <= 200, "must be 200 characters at most"],
  noControl,
  wholeCharacters,
  [
    (address) => !address.includes("@"),
    "must not carry credentials: set LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY instead",
  ],
  [isAddress, "must look like https://host, without a bucket or parameters"],
);

const Region = text([
  (region) => /^[A-Za-z0-9-]{1,50}$/.test(region),
  "must be a region's name, such as eu-central-1 or auto",
]);

const Schema = z.object({
  key: text(noControl, wholeCharacters, plainKey),
  token: text(noControl, wholeCharacters, nothingLost),
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
      (url) => meantByAddress(url) === undefined,
      "names a store's address in the place of the bucket, but that belongs into REPLICA_ENDPOINT",
      meantUrl,
    ],
    [
      (url) => BUCKET.test(bucketOf(url)) && !/\s/.test(url),
      "must look like s3://bucket/path, without spaces",
    ],
    [hasPath, "names no path in the bucket: it must look like s3://bucket/path"],
    [(url) => !url.includes("#") && decodes(url), "must not contain # or a broken % escape"],
  ),
  endpoint: Endpoint.optional(),
  region: Region.optional(),
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
  folder: text(
    noControl,
    wholeCharacters,
    [(path) => !isUnexpanded(path), UNEXPANDED, meantByShell],
    plainPath,
  ),
  db: text(
    [(name) => name.length <= 50, "must be 50 characters at most"],
    noControl,
    wholeCharacters,
    [(name) => !/[/\\]/.test(name), "must be a plain file name; the folder is DB_FOLDER"],
    plainPath,
    [
      (name) => problemOfName(name) === undefined,
      (name) => problemOfName(name) ?? "",
      (name) => (isLikeName(name) ? `: ${nameThatPasses(name)} would do` : ", as db.sqlite does"),
    ],
  ),
});

/** Another place for a database, as `restore({ to })` has it. */
const OtherPath = text(
  [(path) => !isUnexpanded(path), UNEXPANDED],
  [(path) => /[^/]$/.test(path) && !/(?:^|\/)\.\.?$/.test(path), "must name a file"],
  noControl,
  wholeCharacters,
  plainPath,
  [(path) => !/-(?:wal|shm|journal)$/.test(path), "must not end as SQLite's own files beside a database do"],
);

/** What is wrong with a value. */
export interface Problem {
  readonly field: string;
  readonly problem: string;
  /** The end of the problem, which may show a part of the value. */
  readonly meant: string | undefined;
}

/** The value, unless there are problems. */
function checked<Value>(schema: z.ZodType<Value>, input: unknown) {
  const { data, error } = schema.safeParse(input);
  // Without zod's error: that may quote a value.
  const problems = (error?.issues ?? []).map((issue) => ({
    field: String(issue.path[0]),
    problem: issue.message,
    meant: issue.code === "custom" ? (issue.params?.meant as string | undefined) : undefined,
  }));
  return { value: data, problems };
}

export const checkSettings = (input: unknown) => checked(Schema, input);
export const checkEndpoint = (input: string) => checked(Endpoint, input);
export const checkRegion = (input: string) => checked(Region, input);
export const checkPath = (input: unknown) => checked(OtherPath, input);
