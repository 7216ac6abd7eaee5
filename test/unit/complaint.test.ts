import { describe, expect, test } from "vitest";
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
