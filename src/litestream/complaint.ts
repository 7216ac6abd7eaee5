import type { FailureReason } from "../errors.ts";

// What litestream complains of, and what that means. Its words come from the same sources as those in dialect.ts.

// Also: it has the newest files of another replica, and not the first ones, which an empty replica needs.
export const DAMAGED =
  /ltx (?:file corrupted|verification failed): |open .*-litestream\/ltx\/.*: no such file|-litestream(?:\/\S*)?: not a directory/;

/** What a restore says of a database that has not passed its check. */
const INTEGRITY = /post-restore integrity check/;

/** The store's clock and this machine's are too far apart. By the store's `Date`, 0.5 mends that itself at its second try. */
const SKEWED = /RequestTimeTooSkewed|RequestInTheFuture|Probable clock skew/;

/** AWS and others, Ceph, MinIO, Backblaze. `quota exceeded` in lower case is this machine's disk. */
const FULL = /QuotaExceeded|StorageFull|InsufficientStorage|storage cap exceeded|Status ?Code: 507/i;

const REASONS: readonly [FailureReason | "no-backup", RegExp][] = [
  // It may end in `EOF`, which is no word of the network here.
  ["failed", DAMAGED],
  // It says how the database is malformed, which is not the path's fault.
  ["failed", INTEGRITY],
  // Stores send them with 403, which is no fault of the keys here.
  ["failed", SKEWED],
  ["failed", FULL],
  ["no-backup", /no matching backup(?:s found| files available)/],
  [
    "not-a-database",
    /file is not a database|database disk image is malformed|unable to open database file: is a directory/,
  ],
  [
    "bucket",
    // It names the region that it wants; Garage: the scope. Otherwise the key is malformed, as a secret in its place is.
    /NoSuchBucket|InvalidBucketName|PermanentRedirect|AuthorizationHeaderMalformed.*(?:\bregion\b.*\bexpecting\b|expected scope)|Status ?Code: 301/i,
  ],
  [
    "credentials",
    /SignatureDoesNotMatch|InvalidAccessKeyId|UserNotFound|AccessDenied|AuthorizationHeaderMalformed|InvalidToken|ExpiredToken|Forbidden|Status ?Code: (?:401|403)/i,
  ],
  [
    "unreachable",
    /connection refused|server gave HTTP response to HTTPS|connection reset|broken pipe|no such host|i\/o timeout|timeout awaiting|deadline exceeded|unreachable|no route to host|server misbehaving|\bEOF\b|x509|tls:|request send failed|XML syntax error|RequestError|exceeded maximum number of attempts|SlowDown|ServiceUnavailable|InternalError|Status ?Code: 5\d\d/i,
  ],
];

const PLAIN_PORT = "a port that speaks no TLS does that: the store's address then begins with http://";

/** What litestream's words mean to somebody who has not written it. */
const HINTS: readonly [RegExp, string][] = [
  // In rollback-journal mode a reader is enough: litestream can't change it to WAL then.
  [/database (?:table )?is locked/, "another connection holds it: close it"],
  [SKEWED, "this machine's clock differs from the store's: set it"],
  [FULL, "the store has no room left for this bucket: free some, or raise its quota"],
  [
    /integrity check: .*(?:no such function|unknown function|no such collation|no such module)/,
    "that is no damage: the check lacks a function, collation or module of the app's; restore without `integrityCheck`",
  ],
  [
    /file is not a database/,
    "an encrypted database looks like that: litestream can't replicate those of SQLCipher and the like",
  ],
  [
    /permission denied|operation not permitted|read-only file system|readonly database|unable to open database file(?!: is a directory)/,
    "check who may write there: litestream runs as the app's user",
  ],
  [/server gave HTTP response to HTTPS client/, PLAIN_PORT],
];

export interface Complaint {
  readonly reason: FailureReason | "no-backup";
  /** litestream's own words; empty when it said nothing. */
  readonly words: string;
  /** `false` where it said nothing but that it was stopped, or where the reason is a guess from what it did. */
  readonly said: boolean;
}

/**
 * What litestream complains of in its last lines.
 * @param names the database's path and the replica's URL: what looks like a complaint inside them is none
 */
export function complaintOf(lines: readonly string[], names: readonly string[]): Complaint {
  // litestream also names the replica by a part of its URL.
  const parts = names.flatMap((name) => name.split(/[/?#]/)).filter((part) => reasonIn(part) !== undefined);
  const withoutNames = (text: string) =>
    [...names, ...parts].reduce((rest, name) => rest.replaceAll(name, ""), text);
  const explained = (words: string, reason: Complaint["reason"]) => {
    // `permission denied` is then the store's word.
    if (reason === "credentials" || reason === "bucket") return words;
    const hint = HINTS.find(([pattern]) => pattern.test(withoutNames(words)))?.[1];
    return hint === undefined ? words : `${words} (${hint})`;
  };
  let fallback = "";
  let stopped = "";
  for (const line of lines.toReversed()) {
    const words = wordsOf(line);
    if (words === undefined) continue;
    const reason = reasonIn(withoutNames(words));
    if (reason !== undefined) return { reason, words: explained(words, reason), said: true };
    if (STOPPED.test(words)) stopped ||= words;
    else fallback ||= words;
  }
  const asked = fallback === "" && stopped === "" ? askedAgain(lines) : undefined;
  if (asked !== undefined) {
    // That AWS speaks TLS is known.
    const hint = /s3\.url="?https:\/\/[^/"]+:\d+\//.test(asked) ? ` (${PLAIN_PORT})` : "";
    const words = `it sent the same request again and again, without an answer that it could use${hint}`;
    return { reason: "unreachable", words, said: false };
  }
  return { reason: "failed", words: explained(fallback || stopped, "failed"), said: fallback !== "" };
}

/**
 * Whether another try may mend what a restore complains of: the store, or an object that was listed and has gone since, as
 * by the compaction of a litestream that runs elsewhere.
 */
export function mayPass({ reason, words }: Complaint): boolean {
  if (reason === "unreachable") return true;
  return reason === "failed" && /NoSuchKey|Status ?Code: 404|file does not exist/i.test(words);
}

/** What a restore says where it finds no state of the moment that it was asked for. */
export const NO_STATE = /no matching backup|no snapshots available/;

/** What a signal makes of a request that is under way. */
const STOPPED = /\bcontext canceled$/;

function reasonIn(text: string): Complaint["reason"] | undefined {
  return REASONS.find(([, pattern]) => pattern.test(text))?.[0];
}

/** A list of what the replica holds: its header, and a row of it. */
const LISTED =
  /^(?:(?:replica|level|min_txid)\s.*\screated\s*$|(?:\S+\s+)?[0-9a-f]{16}\s.*\s\d{4}-\d\d-\d\dT[\d:.]+Z\s*$)/;

/** Warnings of 0.5.18 that come before the work begins, and say nothing of how it ends. */
const NO_COMPLAINT = /msg="snapshot retention is shorter than snapshot interval"/;

/** What an error line says; `undefined` for a line that complains of nothing. */
function wordsOf(line: string): string | undefined {
  if (NO_COMPLAINT.test(line) || LISTED.test(line)) return undefined;
  // logfmt: 0.3.12 and later
  const logfmt = /^time=\S+ level=(\S+) (.*)$/.exec(line);
  if (logfmt) {
    if (!/^(?:WARN|ERROR)$/.test(logfmt[1] ?? "")) return undefined;
    return quoted(logfmt[2] ?? "");
  }
  // the same before they have read their configuration
  const dated = /^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d (\S+) (.*)$/.exec(line);
  if (dated) return /^(?:WARN|ERROR)$/.test(dated[1] ?? "") ? quoted(dated[2] ?? "") : undefined;
  // ≤ 0.3.9 has no levels, a fatal error of 0.5 begins with `Error: `.
  const informs =
    /^(?:litestream |initialized db|replicating to|signal received|\s*$|[0-9a-f]{8} {2}|replica\s+generation\s|(?:level\s+)?min_txid\s)|: sync: new generation "[0-9a-f]{16}"|\(s3\): snapshot written [0-9a-f]{16}\/|^\s*status code: \d+, request id/;
  return informs.test(line)
    ? undefined
    : line.replace(/^Error: |^.*: (?=(?:monitor|sync) error: )/, "").trim();
}

/** The value of `error="…"`, or the whole text. */
function quoted(text: string): string {
  const value = /\berror=("(?:[^"\\]|\\.)*"|\S+)/.exec(text)?.[1];
  if (value === undefined) return text;
  if (!value.startsWith('"')) return value;
  return value.slice(1, -1).replace(/\\([nt"\\])/g, (_, c: string) => (c === "n" || c === "t" ? " " : c));
}

/**
 * The request that is tried again: 0.5 says nothing of that, but at debug level it names each request. No more than a guess:
 * it also asks for the list of what is there twice in a row.
 */
function askedAgain(lines: readonly string[]): string | undefined {
  const requests = lines.flatMap((line) => /msg="s3 request".* (s3\.method=.*)$/.exec(line)?.[1] ?? []);
  return requests.length > 1 && requests.at(-1) === requests.at(-2) ? requests.at(-1) : undefined;
}
