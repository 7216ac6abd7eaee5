import { describe, expect, test } from "vitest";
import { adviceOn } from "../../src/litestream/advice.ts";
import { complaintOf, identify } from "../../src/litestream/dialect.ts";
import { COMMANDS, REPLICATE_HELP } from "./recorded.ts";

// All lines were recorded, with paths and ids shortened.

const NAMES = ["/data/a.db", "s3://backups.localhost:7070/a.db"];
const AT = "time=2026-12-01T02:55:42.003Z level=";

describe("0.5.18", () => {
  const START = [
    `${AT}INFO msg=litestream version=v0.5.18 level=""`,
    `${AT}INFO msg="initialized db" path=/data/a.db`,
    `${AT}INFO msg="replicating to" type=s3 sync-interval=20ms bucket=backups path=a.db region=us-east-1 endpoint=http://localhost:7171`,
    `${AT}INFO msg="syncing database" path=/data/a.db`,
  ];
  const STOP = [
    `${AT}INFO msg="replication complete, litestream shutting down"`,
    `${AT}INFO msg="litestream shut down"`,
  ];
  const S3_ERROR =
    "Error: sync database /data/a.db: check database behind replica: get replica position: operation error S3: ListObjectsV2, https response error StatusCode:";
  const OTHERS_FOLDER =
    "open ltx file /data/.a.db-litestream/ltx/0/0000000000000001-0000000000000001.ltx: open /data/.a.db-litestream/ltx/0/0000000000000001-0000000000000001.ltx: no such file or directory";
  const SHUTDOWN_SYNC = `${AT}WARN msg="shutdown sync failed, retrying" system=store db=a.db attempts=1 error="${OTHERS_FOLDER}" elapsed=1.176681ms remaining=29.998823209s`;

  test.each([
    [
      "credentials",
      `${S3_ERROR} 403, RequestID: 2T3Y3HNF5LQY5HQC, HostID: O/7sJqSKmHl=, api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method.`,
    ],
    [
      "credentials",
      `${S3_ERROR} 404, RequestID: ZJP7ANBIFNTZMNNI, HostID: lQawWNG1WWlK=, api error XAdminUserNotFound: No user exists with the provided access key ID.`,
    ],
    [
      "bucket",
      `${S3_ERROR} 404, RequestID: PFEAHHNNHJ04CHHH, HostID: 5akGN03KtqW=, NoSuchBucket: The specified bucket does not exist.`,
    ],
    ["not-a-database", "Error: sync database /data/a.db: file is not a database (26)"],
    ["no-backup", "Error: no matching backup files available"],
    ["failed", SHUTDOWN_SYNC],
  ])("%s", (reason, line) => {
    expect(complaintOf([...START, ...STOP, line], NAMES).reason).toBe(reason);
  });

  test("the folder of another replica ends a run, and goes", () => {
    const commands = COMMANDS["0.5.17"];
    const known = identify({ version: "v0.5.18", commands, replicateHelp: REPLICATE_HELP["0.5.10"] });
    const how = known?.dialect.replicate;
    expect(SHUTDOWN_SYNC).toMatch(how?.failure ?? "");
    // 0.5.17
    const before = SHUTDOWN_SYNC.replace('retrying"', 'retrying (press Ctrl+C again to skip)"');
    expect(before).toMatch(how?.failure ?? "");
    expect(complaintOf([SHUTDOWN_SYNC], NAMES).words).toMatch(how?.damaged ?? "");
    expect(SHUTDOWN_SYNC.replace(OTHERS_FOLDER, "connection refused")).not.toMatch(how?.failure ?? "");
  });

  test("its warning of the retention, with which it begins, is no complaint", () => {
    const warning = `${AT}WARN msg="snapshot retention is shorter than snapshot interval" field=snapshot.retention retention=5s interval=876000h0m0s`;
    expect(complaintOf([warning, ...START], NAMES)).toEqual({ reason: "failed", words: "", said: false });
  });
});

/** The answers of a store, as three releases print them. */
const answered = (status: number, code: string, message: string) => [
  `${AT}ERROR msg="monitor error" db=/data/a.db replica=s3 error="${code}: ${message.replaceAll('"', '\\"')}\\n\\tstatus code: ${status}, request id: , host id: "`,
  `${AT}ERROR msg="failed to run" error="operation error S3: ListObjectsV2, https response error StatusCode: ${status}, RequestID: , HostID: , api error ${code}: ${message.replaceAll('"', '\\"')}"`,
  `Error: operation error S3: ListObjectsV2, https response error StatusCode: ${status}, RequestID: , HostID: , api error ${code}: ${message}`,
];

describe("a header that is malformed", () => {
  const MALFORMED = "The authorization header is malformed; ";
  test.each([
    [
      "credentials",
      `${MALFORMED}the authorization component "Credential=a/b/20261201/us-east-1/s3/aws4_request" is malformed.`,
    ],
    [
      "credentials",
      `${MALFORMED}the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".`,
    ],
    // Of AWS.
    ["credentials", `${MALFORMED}a non-empty Access Key (AKID) must be provided in the credential.`],
    ["bucket", `${MALFORMED}the region "eu-central-1" is wrong; expecting "us-east-1"`],
    // Of AWS, MinIO and Garage.
    ["bucket", `${MALFORMED}the region 'us-east-1' is wrong; expecting 'eu-central-1'`],
    ["bucket", `${MALFORMED}the region is wrong; expecting 'eu-central-1'.`],
    ["bucket", "Authorization header malformed, unexpected scope: 20261201/us-east-1/s3/aws4_request"],
  ])("%s: %s", (reason, message) => {
    for (const line of answered(400, "AuthorizationHeaderMalformed", message))
      expect(complaintOf([line], NAMES).reason).toBe(reason);
  });
});

describe("says what litestream's words mean", () => {
  const SKEWED = "The difference between the request time and the current time is too large.";
  const INTEGRITY = "Error: post-restore integrity check: integrity check: SQL logic error: ";
  test.each([
    ["failed", "clock differs", answered(403, "RequestTimeTooSkewed", SKEWED)],
    [
      "failed",
      "clock differs",
      [
        `Error: operation error S3: ListObjectsV2, exceeded maximum number of attempts, 8, Probable clock skew error: https response error StatusCode: 403, RequestID: , HostID: , api error RequestTimeTooSkewed: ${SKEWED}`,
      ],
    ],
    ["failed", "no room", answered(403, "QuotaExceeded", "Bucket quota exceeded")],
    ["failed", "no room", answered(400, "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded")],
    [
      "failed",
      "no room",
      answered(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
    ],
    ["failed", "no room", answered(507, "Unknown", "UnknownError")],
    ["failed", "no room", answered(403, "AccessDenied", "Cannot upload files, storage cap exceeded.")],
    ["not-a-database", "SQLCipher", ["Error: sync database /data/a.db: file is not a database (26)"]],
    ["failed", "no damage", [`${INTEGRITY}unknown function: slug() (1)`]],
    ["failed", "no damage", [`${INTEGRITY}no such collation sequence: nat (257)`]],
    [
      "failed",
      "who may write",
      [
        "Error: sync database /data/a.db: create _litestream_seq table: attempt to write a readonly database (8)",
      ],
    ],
    ["failed", "who may write", ["/data/a.db: sync error: attempt to write a readonly database"]],
    [
      "failed",
      "who may write",
      [
        `${AT}ERROR msg="sync error" db=/data/a.db error="ensure wal exists: unable to open database file: permission denied"`,
      ],
    ],
    [
      "failed",
      "who may write",
      ["Error: sync database /data/a.db: set PERSIST_WAL: get connection: unable to open database file (14)"],
    ],
    [
      "unreachable",
      "begins with http://",
      [
        `${AT}ERROR msg="cannot determine generations" db=/data/a.db replica=s3 error="RequestError: send request failed\\ncaused by: Get \\"https://127.0.0.1:7171/backups?delimiter=%2F&prefix=a.db%2Fgenerations%2F\\": http: server gave HTTP response to HTTPS client"`,
      ],
    ],
  ])("%s: %s", (reason, hint, lines) => {
    for (const line of lines) {
      const complaint = complaintOf([line], NAMES);
      expect(complaint).toMatchObject({ reason, words: expect.stringContaining(hint) });
    }
  });

  test("but not of a store's answer, nor of a name", () => {
    for (const line of answered(403, "AccessDenied", "permission denied"))
      expect(complaintOf([line], NAMES)).toMatchObject({
        reason: "credentials",
        words: expect.not.stringContaining("(check"),
      });
    const db = "/data/permission denied/a.db";
    expect(complaintOf([`Error: sync database ${db}: disk I/O error (10)`], [db]).words).not.toContain(
      "who may",
    );
    expect(complaintOf(["Error: write /data/x: disk quota exceeded"], NAMES).words).not.toContain("no room");
    expect(complaintOf([`${INTEGRITY}database disk image is malformed (11)`], NAMES).words).not.toContain(
      "no damage",
    );
  });

  test("a request that is tried again: of a port of one's own, that it may speak no TLS", () => {
    const asked = (url: string) =>
      `${AT}DEBUG msg="s3 request" db=a.db replica=s3 s3.method=GET s3.url="${url}/backups?list-type=2&prefix=a.db%2F0000%2F" s3.x-tigris-consistent=""`;
    const words = (url: string) => complaintOf([asked(url), asked(url)], NAMES).words;
    expect(words("https://127.0.0.1:7171")).toContain("begins with http://");
    expect(words("http://127.0.0.1:7171")).toMatch(/again and again, without an answer that it could use$/);
    expect(words("https://s3.example.com")).toMatch(/again and again, without an answer that it could use$/);
  });
});

describe("a list is no complaint", () => {
  const OLD = "replica  generation  index  offset  size  created";
  test.each([
    ["0.3.9", [OLD, "s3       a5a4654cb9aceecf  10     4152    95    2026-11-25T04:18:09Z"]],
    [
      "0.5.5",
      [
        "min_txid          max_txid          size  created",
        "0000000000000001  0000000000000001  567   2026-12-01T02:55:41Z",
      ],
    ],
    [
      "0.5.18",
      [
        "level  min_txid          max_txid          size  created",
        "9      0000000000000001  0000000000000001  567   2026-12-01T02:55:43Z",
      ],
    ],
  ])("of %s", (_, lines) => {
    expect(complaintOf(lines, NAMES)).toEqual({ reason: "failed", words: "", said: false });
  });

  test("0.3.9 says what it could not do before the header of the list", () => {
    const lines = [
      "s3: cannot determine generations: NotImplemented: A header you provided implies functionality",
      OLD,
    ];
    expect(complaintOf(lines, NAMES)).toMatchObject({
      said: true,
      words: expect.stringContaining("NotImplemented"),
    });
  });
});

describe("what to do", () => {
  test("a key that begins with ASIA needs a session token", () => {
    const temporary = adviceOn("credentials", { env: { AWS_ACCESS_KEY_ID: "ASIATESTTESTTEST" } });
    expect(temporary).toMatch(/^Check LITESTREAM_ACCESS_KEY_ID .* needs a session token/);
    expect(temporary).not.toContain("ASIATEST");
    expect(adviceOn("credentials", { env: { AWS_ACCESS_KEY_ID: "AKIATESTTESTTEST" } })).not.toContain(
      "session",
    );
    expect(adviceOn("bucket", { env: { AWS_ACCESS_KEY_ID: "ASIATESTTESTTEST" } })).not.toContain("session");
  });

  test.each(["timeout", "unreachable"] as const)(
    "a proxy is named where the store gives no answer: %s",
    (reason) => {
      const env = { https_proxy: "http://me:secret@proxy:3128", HTTP_PROXY: "", NO_PROXY: "localhost" };
      expect(adviceOn(reason, { env })).toMatch(/the proxy in https_proxy: check/);
      expect(adviceOn(reason, { env })).not.toContain("secret");
      expect(adviceOn(reason, { env: { NO_PROXY: "localhost" } })).not.toContain("proxy in");
      expect(adviceOn("credentials", { env })).not.toContain("proxy");
    },
  );
});
