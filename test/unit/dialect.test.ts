import { describe, expect, test } from "vitest";
import {
  chainOf,
  checksIntegrity,
  complaintOf,
  configurationOf,
  copySize,
  identify,
  isUntried,
  mayPass,
  NO_BACKUP,
  objectsOf,
  type ReplicaObject,
  restoreArgs,
  restorePlan,
  upkeepOf,
} from "../../src/litestream/dialect.ts";
import { COMMANDS, REPLICATE_HELP, RESTORE_HELP } from "./recorded.ts";

const DB = "/data/a.db";
const URL = "s3://backups.localhost:7070/a.db";
const NAMES = [DB, URL];
const CONFIGURED = ["-no-expand-env", "-config", "/dev/stdin"];

/** The dialect of a release; one that can't replicate has no `replicate`. */
function dialectOf(commands: keyof typeof COMMANDS, help: keyof typeof REPLICATE_HELP) {
  const version = "(development build)";
  const known = identify({ version, commands: COMMANDS[commands], replicateHelp: REPLICATE_HELP[help] });
  if (known === undefined) throw new Error("not known");
  return known.dialect;
}
function replicateOf(...release: Parameters<typeof dialectOf>) {
  const { replicate } = dialectOf(...release);
  if (replicate === undefined) throw new Error("it can't replicate");
  return replicate;
}
const V0_3 = replicateOf("0.3", "0.5.5");
const V0_5 = replicateOf("0.5.17", "0.5.10");

// --- Recorded: 0.3.9 (logs on stderr, the shutdown lines on stdout) ---------------------------------------------

const OLD_START = [
  "litestream (development build)",
  "initialized db: /data/a.db",
  'replicating to: name="s3" type="s3" bucket="backups" path="a.db" region="us-east-1" endpoint="http://localhost:7070" sync-interval=1s',
];
const OLD_GENERATION = '/data/a.db: sync: new generation "456a9220810fe3f2", no generation exists';
const OLD_SNAPSHOT = "/data/a.db(s3): snapshot written 456a9220810fe3f2/00000000";
const OLD_STOP = ["signal received, litestream shutting down", "litestream shut down"];
const OLD_NOT_A_DB = "/data/a.db: sync error: file is not a database";
const OLD_SIGNATURE = [
  "/data/a.db(s3): monitor error: SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method.",
  "\tstatus code: 403, request id: QF0DU7YUQ464V8U3, host id: hxvRSdolUH1eN1Zv4vuXKMgNEdkiy7c59vwoHR1UDwxj50d0TzAfm46xZHsK/6cU+kc5ra8U6jfcljgcE6B6fas=",
];
const OLD_BUCKET = [
  "/data/a.db(s3): monitor error: NoSuchBucket: The specified bucket does not exist.",
  "\tstatus code: 404, request id: C0MUMR4NBJCF8739, host id: 5W8eAcv9VJqvyH/aVPnQQofQF2kJfZvOsYILk0REjqu+kyN0XIk1S6u3gVULQPTvKZcPPP1KkhhxPssDPfCo+6o=",
];
const OLD_UNREACHABLE = [
  "/data/a.db(s3): monitor error: RequestError: send request failed",
  'caused by: Get "http://localhost:7071/backups?delimiter=%2F&prefix=a.db%2Fgenerations%2Fe1535dc80ac1a3dd%2Fsnapshots%2F": dial tcp 127.0.0.1:7071: connect: connection refused',
];

// --- Recorded: 0.3.13 with a configuration -------------------------------------------------------------------------------------------

const NEW_START = [
  "time=2026-11-24T09:29:06.123Z level=INFO msg=litestream version=v0.3.13",
  'time=2026-11-24T09:29:06.123Z level=INFO msg="initialized db" path=/data/a.db',
  'time=2026-11-24T09:29:06.123Z level=INFO msg="replicating to" name=s3 type=s3 sync-interval=1s bucket=backups path=a.db region=us-east-1 endpoint=http://localhost:7070',
  'time=2026-11-24T09:29:07.123Z level=INFO msg="sync: new generation" db=/data/a.db generation=4b8e5b16d1efe030 reason="no generation exists"',
];
const NEW_SNAPSHOT_BEGINS =
  'time=2026-11-24T09:29:07.123Z level=INFO msg="write snapshot" db=/data/a.db replica=s3 position=4b8e5b16d1efe030/00000000:16512';
const NEW_SNAPSHOT =
  'time=2026-11-24T09:29:07.123Z level=INFO msg="snapshot written" db=/data/a.db replica=s3 position=4b8e5b16d1efe030/00000000:16512 elapsed=5.922053ms sz=299';
const NEW_WAL =
  'time=2026-11-24T09:29:07.123Z level=INFO msg="wal segment written" db=/data/a.db replica=s3 position=4b8e5b16d1efe030/00000000:0 elapsed=893.733µs sz=16512';
const NEW_STOP = [
  'time=2026-11-24T09:29:09.123Z level=INFO msg="signal received, litestream shutting down"',
  'time=2026-11-24T09:29:09.123Z level=INFO msg="litestream shut down"',
];
const NEW_NOT_A_DB =
  'time=2026-11-24T09:29:01.123Z level=ERROR msg="sync error" db=/data/a.db error="file is not a database"';
const NEW_SIGNATURE =
  'time=2026-11-24T09:29:13.123Z level=ERROR msg="monitor error" db=/data/a.db replica=s3 error="SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method.\\n\\tstatus code: 403, request id: WIFAK8I3IUFFZ7VE, host id: +D0cbzRIkPUlqiFZ2U++3CbIAk2wNZdQMWxTrrGzTL7EASxCVyWXO+oL9+bPaVtZKQAWnJlAwtzBOiip63bh9/A="';
const NEW_KEY =
  'time=2026-11-24T09:29:18.123Z level=ERROR msg="failed to run" error="XAdminUserNotFound: No user exists with the provided access key ID.\\n\\tstatus code: 404, request id: KMCRNMIX19WU6K81, host id: 2gwwUJTgEAcs5vmQ3fdOETFi+cVOCUfIanGWDhl+ylxofRTbu6kSQpwmSfZvgvFgUx8ZX7hxvV4CM1HMzC2yfXk="';
const NEW_BUCKET =
  'time=2026-11-24T09:29:10.123Z level=ERROR msg="monitor error" db=/data/a.db replica=s3 error="NoSuchBucket: The specified bucket does not exist.\\n\\tstatus code: 404, request id: 7FP3S5GR2BUOVWHJ, host id: O73/ex6OYZJudrFiI291pI++5snNxCJ0tjc3HAx0J3sFJ7zXMqWEpR/FKcdTg2B0Y4DctUbl8GI601xrPJQawLE="';
const NEW_UNREACHABLE =
  'time=2026-11-24T09:29:20.123Z level=ERROR msg="monitor error" db=/data/a.db replica=s3 error="RequestError: send request failed\\ncaused by: Get \\"http://localhost:7071/backups?delimiter=%2F&prefix=a.db%2Fgenerations%2Feb83511f6a7a320c%2Fsnapshots%2F\\": dial tcp 127.0.0.1:7071: connect: connection refused"';
const NEW_RESTORE_REFUSED =
  'time=2026-11-24T10:48:50.123Z level=ERROR msg="failed to run" error="cannot fetch generations: NoSuchBucket: The specified bucket does not exist.\\n\\tstatus code: 404, request id: TXQ3R44YWRMIVAIX, host id: V26hhXjhJyR1hVa3D1DEu+wOfR+P3xW8NATMTwtxSme7m3mIiffepagK0WIfU+hhx2DM9KTkNxGG+Z4M+8WESEY="';

// --- Recorded: 0.5.10 and 0.5.17 (logs on stdout, `Error: …` of 0.5.17 on stderr) ---------------------------------

const ONCE_START = [
  "time=2026-11-24T09:38:33.855Z level=INFO msg=litestream version=0.5.17 level=INFO",
  'time=2026-11-24T09:38:33.855Z level=INFO msg="initialized db" path=/data/a.db',
  'time=2026-11-24T09:38:33.855Z level=INFO msg="replicating to" type=s3 sync-interval=1s bucket=backups path=a.db region=us-east-1 endpoint=http://localhost:7070',
  'time=2026-11-24T09:38:33.855Z level=INFO msg="syncing database" path=/data/a.db',
];
const ONCE_SYNC =
  'time=2026-11-24T09:34:07.737Z level=INFO msg="replica sync" system=store db=a.db replica=s3 txid.replica=0000000000000000 txid.db=0000000000000001';
const ONCE_COMPLETE = 'time=2026-11-24T09:38:33.863Z level=INFO msg="one-shot replication complete"';
// Printed after a failure too.
const ONCE_STOP = [
  'time=2026-11-24T09:38:33.863Z level=INFO msg="replication complete, litestream shutting down"',
  'time=2026-11-24T09:38:33.863Z level=INFO msg="litestream shut down"',
];
const S3_ERROR =
  "sync database /data/a.db: check database behind replica: get replica position: operation error S3: ListObjectsV2";
const ONCE_NOT_A_DB = "Error: sync database /data/a.db: file is not a database (26)";
const ONCE_NOT_A_DB_0_5_10 =
  'time=2026-11-24T09:33:37.480Z level=ERROR msg="failed to run" error="sync database /data/a.db: file is not a database (26)"';
const ONCE_SIGNATURE = `Error: ${S3_ERROR}, https response error StatusCode: 403, RequestID: UTDX0UG1PQP5KKP7, HostID: 6R96qduKSYxihdBAk4Nf7Bx4l2tNfXabdfV/BukVXlngE0fvVlwDj+mGtTKezxZ+3g5vatUfkhJZtTJ2jFBJkvI=, api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method.`;
const ONCE_SIGNATURE_0_5_10 = `time=2026-11-24T09:34:07.999Z level=ERROR msg="failed to run" error="${S3_ERROR}, https response error StatusCode: 403, RequestID: AZ06ZG5B1E62CAVP, HostID: JadrTMk1JHk1Uf80lHTD2fKOvr9lPV03BE023rj86UUZwiY7ZedhZNaRHeTFKb3Fs9wLqLaDIwsedkuO3JM3c0c=, api error SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method."`;
const ONCE_KEY = `Error: ${S3_ERROR}, https response error StatusCode: 404, RequestID: DJJ4VW6CD3R9ELOR, HostID: ncJtcgVVB0TPXESSEais75Z/y2CwlcwAzDE7dXnTzbVW6bTO4h7T9OVUhD6JN2pzZfcesrVd1/wuopbTYGTcL6Q=, api error XAdminUserNotFound: No user exists with the provided access key ID.`;
const ONCE_BUCKET = `Error: ${S3_ERROR}, https response error StatusCode: 404, RequestID: 4D24A1XB81S87V9T, HostID: TF2Ur3TtTkx725nk6vjWS1saoAcQC/PE7+ZxkK0xFPEKl7u4XxY1l22yzeuFHG/55ieCXtlYhgnk60nmcvhP2cY=, NoSuchBucket: The specified bucket does not exist.`;
const ONCE_UNREACHABLE = `Error: ${S3_ERROR}, exceeded maximum number of attempts, 10, https response error StatusCode: 0, RequestID: , HostID: , request send failed, Get "http://localhost:7071/backups?list-type=2&prefix=a.db%2F0000%2F": dial tcp 127.0.0.1:7071: connect: connection refused`;
const SHUTDOWN_SYNC =
  'time=2026-11-24T09:38:25.318Z level=WARN msg="shutdown sync failed, retrying (press Ctrl+C again to skip)" system=store db=a.db attempts=43 error="no position, waiting for data" elapsed=21.08596384s remaining=8.914036s';
const CONTINUOUS_BUCKET_0_5_5 =
  'time=2026-11-24T09:29:34.696Z level=ERROR msg="monitor error" db=a.db replica=s3 error="write ltx file: s3: upload to a.db/0000/0000000000000001-0000000000000001.ltx: operation error S3: PutObject, https response error StatusCode: 404, RequestID: 46SDCYLU6DPWTJ3G, HostID: ywOIU13v5vY5xaY70h194fRqCbRdybYIbb6eoC+TI11VzSQOv1gDEIYDdCE3SCC/FX5g12lbqI1AhNBkykVZxe4=, api error NoSuchBucket: The specified bucket does not exist."';
const CONTINUOUS_UNREACHABLE_0_5_5 =
  'time=2026-11-24T09:33:37.313Z level=ERROR msg="failed to close database" error="write ltx file: s3: upload to a.db/0000/0000000000000001-0000000000000001.ltx: operation error S3: PutObject, exceeded maximum number of attempts, 10, https response error StatusCode: 0, RequestID: , HostID: , request send failed, Put \\"http://localhost:7071/backups/a.db/0000/0000000000000001-0000000000000001.ltx?x-id=PutObject\\": dial tcp 127.0.0.1:7071: connect: connection refused"';
const asked = (second: string, prefix: string) =>
  `time=2026-11-24T10:48:${second}Z level=DEBUG msg="s3 request" system=store db=a.db replica=s3 s3.method=GET s3.url="http://localhost:7199/backups?list-type=2&prefix=a.db%2F${prefix}%2F" s3.x-tigris-consistent=""`;

describe("identify", () => {
  const ask = (version: string, commands: keyof typeof COMMANDS, help: keyof typeof REPLICATE_HELP) =>
    identify({ version, commands: COMMANDS[commands], replicateHelp: REPLICATE_HELP[help] });

  test.each([
    ["(development build)\n", "0.3 (development build)"],
    ["v0.3.13\n", "0.3.13"],
  ])("0.3 answers %j", (version, expected) => {
    // 0.3 prints the same help without -once as 0.5.5 does.
    const known = ask(version, "0.3", "0.5.5");
    expect(known).toMatchObject({ version: expected, dialect: { replicate: { ends: "interrupt" } } });
    expect(known?.dialect.blindTo).toContain("0.3 cannot see backups made by litestream 0.5");
  });

  test.each([
    ["0.5.10\n", "0.5.10"],
    ["v0.5.17\n", "0.5.17"],
    ["v0.5.18\n", "0.5.18"],
    ["(development build)\n", "0.5 (development build)"],
    ["0.6.0-beta.1\n", "0.6.0-beta.1"],
  ])("0.5 with -once answers %j", (version, expected) => {
    const known = ask(version, "0.5.17", "0.5.10");
    expect(known).toMatchObject({ version: expected, dialect: { replicate: { ends: "self" } } });
    expect(known?.dialect.blindTo).toBeUndefined();
  });

  test.each([
    [false, "0.3.14"],
    [false, "0.3 (development build)"],
    [false, "0.5.9"],
    [false, "0.5.18"],
    [true, "0.5.19"],
    [true, "0.5.100"],
    [true, "0.6.0-beta.1"],
    [true, "1.0.0"],
  ])("newer than what was tried: %s, %s", (untried, version) => {
    expect(isUntried(version)).toBe(untried);
  });

  test("0.5 without -once can't prove a replication", () => {
    const known = ask("0.5.5\n", "0.5.5", "0.5.5");
    expect(known?.version).toBe("0.5.5");
    expect(known?.dialect.replicate).toBeUndefined();
  });

  test("what it can do tells, not what it calls itself", () => {
    expect(ask("v0.3.13", "0.5.17", "0.5.10")?.dialect.replicate?.ends).toBe("self");
    expect(ask("v0.5.17", "0.3", "0.5.5")?.dialect.replicate?.ends).toBe("interrupt");
  });

  test.each([
    ["nothing", { version: "", commands: "", replicateHelp: "" }],
    ["half an answer", { version: "v0.5.17", commands: COMMANDS["0.5.17"], replicateHelp: "" }],
    ["another program", { version: "v0.5.17", commands: "usage: rclone [command]", replicateHelp: "" }],
    [
      "a script that could not find it",
      { version: "", commands: "sh: 1: litestream: not found", replicateHelp: "" },
    ],
    [
      "litestream without the commands that are needed",
      {
        version: "v9.0.0",
        commands: COMMANDS["0.3"].replace(/^.*generations.*\n/m, ""),
        replicateHelp: "",
      },
    ],
  ])("is undefined for %s", (_, answers) => {
    expect(identify(answers)).toBeUndefined();
  });
});

describe("arguments", () => {
  test("of a replication", () => {
    expect(V0_3.args).toEqual(["replicate", ...CONFIGURED]);
    expect(V0_5.args).toEqual(["replicate", "-once", ...CONFIGURED]);
  });

  test("of a restore, without -v, which litestream refuses since 0.3.12", () => {
    const rest = ["-o", "/data/r", DB];
    expect(restoreArgs("/data/r", DB)).toEqual(["restore", ...CONFIGURED, ...rest]);
    const state = ["-txid", "000000000000000a"];
    expect(restoreArgs("/data/r", DB, { ifReplicaExists: true, integrityCheck: "full", state })).toEqual([
      "restore",
      ...CONFIGURED,
      "-if-replica-exists",
      "-integrity-check",
      "full",
      ...state,
      ...rest,
    ]);
  });
});

describe("the state of a moment", () => {
  const at = (time: string) => new Date(`2026-11-25T12:${time}Z`);
  /** In the words of the test: what names it, when its last part has arrived, and since when there is something. */
  const told = (
    { moment }: ReturnType<typeof dialectOf>,
    list: string,
    time: string,
    stderr = "",
  ): unknown => {
    const state = moment.of(list, stderr, at(time));
    return state && [state.args.join(" "), state.at?.toISOString().slice(17, 19), state.broken];
  };
  const V0_3 = dialectOf("0.3", "0.5.5");
  const V0_5 = dialectOf("0.5.17", "0.5.10");
  const V0_5_5 = dialectOf("0.5.5", "0.5.5");

  const WAL = `replica  generation        index  offset  size  created
s3       a35f73258fe22786  0      0       119   2026-11-25T12:50:20Z
s3       b541f7d1dba1a221  0      4152    119   2026-11-25T12:50:09Z
s3       b541f7d1dba1a221  0      0       119   2026-11-25T12:50:04Z
s3       c077fb9856fd411d  0      0       477   2026-11-25T12:50:01Z
`;
  test.each([
    ["before the first one", "50:00", ["-timestamp 2026-11-25T12:50:00.999Z", undefined, false]],
    ["in its second", "50:01", ["-generation c077fb9856fd411d", "01", false]],
    ["between two generations", "50:03.999", ["-generation c077fb9856fd411d", "01", false]],
    [
      "while one was being written to",
      "50:08.5",
      ["-generation b541f7d1dba1a221 -timestamp 2026-11-25T12:50:08.999Z", "04", false],
    ],
    ["after its last segment", "50:09", ["-generation b541f7d1dba1a221", "09", false]],
    ["after the last one", "59:00", ["-generation a35f73258fe22786", "20", false]],
  ])("on 0.3: %s", (_, time, expected) => {
    expect(told(V0_3, WAL, time)).toEqual(expected);
    expect(V0_3.moment.of(WAL, "", at(time))?.since).toEqual(at("50:01"));
  });

  test("on 0.3, of two generations that go on: the one that was written to last by then", () => {
    const both = `${WAL}s3       c077fb9856fd411d  0      4152    477   2026-11-25T12:50:06Z\n`;
    expect(told(V0_3, both, "50:05")).toEqual([
      "-generation b541f7d1dba1a221 -timestamp 2026-11-25T12:50:05.999Z",
      "04",
      false,
    ]);
    expect(told(V0_3, both, "50:07")).toEqual(["-generation c077fb9856fd411d", "06", false]);
  });

  /** Rows of a level, the first and last transaction, and the time. */
  const ltx = (...rows: [level: number, min: number, max: number, time: string][]) =>
    `level  min_txid          max_txid          size  created\n${rows
      .map(
        ([level, min, max, time]) =>
          `${level}      ${String(min).padStart(16, "0")}  ${String(max).padStart(16, "0")}  719   2026-11-25T12:${time}Z\n`,
      )
      .join("")}`;
  const withoutLevels = (list: string) => list.replace(/^(?:level| *\d) +/gm, "");
  const LIVES = ltx([0, 1, 1, "50:15"], [0, 2, 2, "50:18"], [0, 3, 3, "50:20"]);
  test.each([
    ["before the first one", "50:14.999", ["-timestamp 2026-11-25T12:50:14.999Z", undefined, false]],
    ["in its second", "50:15", ["-txid 0000000000000001", "15", false]],
    ["in between", "50:19", ["-txid 0000000000000002", "18", false]],
    ["after the last one", "59:00", ["-txid 0000000000000003", "20", false]],
  ])("on 0.5: %s", (_, time, expected) => {
    expect(told(V0_5, LIVES, time)).toEqual(expected);
    expect(told(V0_5_5, withoutLevels(LIVES), time)).toEqual(expected);
    expect(V0_5.moment.of(LIVES, "", at(time))?.since).toEqual(at("50:15"));
  });

  test("on 0.5, a transaction is named in hexadecimal", () => {
    const many = LIVES.replace("0000000000000003  0000000000000003", "0000000000000003  000000000000001a");
    expect(told(V0_5, many, "59:00")).toEqual(["-txid 000000000000001a", "20", false]);
  });

  test("on 0.5, snapshots and compacted objects: what could be reached by then", () => {
    const list = ltx([9, 1, 4, "51:00"], [9, 1, 9, "55:00"], [1, 5, 8, "52:00"], [0, 9, 9, "52:10"]);
    expect(told(V0_5, list, "50:59")).toEqual(["-timestamp 2026-11-25T12:50:59.999Z", undefined, false]);
    expect(told(V0_5, list, "51:30")).toEqual(["-txid 0000000000000004", "00", false]);
    expect(told(V0_5, list, "52:05")).toEqual(["-txid 0000000000000008", "00", false]);
    expect(told(V0_5, list, "52:30")).toEqual(["-txid 0000000000000009", "10", false]);
  });

  test("on 0.5, one that a compaction has put together with later ones: the step before it", () => {
    const list = ltx([9, 1, 4, "51:00"], [1, 5, 8, "52:00"], [0, 6, 6, "51:40"], [0, 8, 8, "51:59"]);
    expect(told(V0_5, list, "51:45")).toEqual(["-txid 0000000000000004", "00", false]);
  });

  test("on 0.5, objects that are missing before it", () => {
    const gap = ltx([0, 1, 1, "50:15"], [0, 3, 3, "50:20"], [0, 4, 4, "50:30"]);
    expect(told(V0_5, gap, "50:25")).toEqual(["-txid 0000000000000001", "15", true]);
    expect(told(V0_5, gap, "50:16")).toEqual(["-txid 0000000000000001", "15", false]);
    const beginning = ltx([0, 2, 2, "50:18"]);
    expect(told(V0_5, beginning, "59:00")).toEqual(["-timestamp 2026-11-25T12:59:00.999Z", undefined, false]);
    expect(V0_5.moment.of(beginning, "", at("59:00"))?.since).toBeUndefined();
  });

  test("where there is none, litestream has to say so; 0.5 may find some of 0.3", () => {
    const nothing = "replica  generation  index  offset  size  created\n";
    expect(told(V0_3, nothing, "50:00")).toEqual(["", undefined, false]);
    expect(told(V0_5, ltx(), "50:00")).toEqual(["-timestamp 2026-11-25T12:50:00.999Z", undefined, false]);
  });

  test.each([
    ["0.3, nothing", V0_3, "", ""],
    ["0.3, the list of another one", V0_3, LIVES, ""],
    ["0.3, a time that is none", V0_3, WAL.replace("2026-11-25T12:50:04Z", "yesterday"), ""],
    ["0.3, a list that was not finished", V0_3, WAL, "x: cannot fetch wal segments: no"],
    ["0.5, nothing", V0_5, "", ""],
    ["0.5, the list of another one", V0_5, WAL, ""],
    ["0.5, a time that is none", V0_5, LIVES.replace("2026-11-25T12:50:18Z", "yesterday"), ""],
  ])("%s: is not known", (_, dialect, list, stderr) => {
    expect(told(dialect, list, "50:30", stderr)).toBeUndefined();
  });
});

describe("a failed restore", () => {
  test.each([
    [
      true,
      'time=2026-11-25T12:50:20Z level=ERROR msg="failed to run" error="api error SlowDown: StatusCode: 503"',
    ],
    [true, "Error: decode database: unexpected EOF"],
    [true, "Error: api error NoSuchKey: The specified key does not exist."],
    [true, "Error: open ltx file: file does not exist"],
    [false, "Error: api error SignatureDoesNotMatch: no"],
    [false, "Error: api error NoSuchBucket: StatusCode: 404"],
    [false, "Error: no matching backup files available"],
    [false, "Error: post-restore integrity check: database disk image is malformed"],
    [false, "Error: cannot decode: something else"],
  ])("may pass: %s, %s", (passes, line) => {
    expect(mayPass(complaintOf([line], NAMES))).toBe(passes);
  });

  test("of a damaged database is none of its path", () => {
    const line = "Error: post-restore integrity check: database disk image is malformed";
    expect(complaintOf([line], NAMES).reason).toBe("failed");
  });
});

test.each([
  [false, "0.3"],
  [false, "0.5.5"],
  [true, "0.5.10"],
] as const)("integrity check: %s on %s", (known, version) => {
  expect(checksIntegrity(RESTORE_HELP[version])).toBe(known);
});

describe("how far a replica has come", () => {
  const [old, now] = [dialectOf("0.3", "0.5.5").position, dialectOf("0.5.17", "0.5.10").position];
  const WAL = `replica  generation        index  offset  size  created
s3       a5a4654cb9aceecf  0      0       451   2026-11-25T04:18:02Z
s3       a5a4654cb9aceecf  10     4152    95    2026-11-25T04:18:09Z
s3       a5a4654cb9aceecf  9      8272    95    2026-11-25T04:18:05Z
s3       05a66b7b3f4d023e  2      0       451   2026-11-25T04:17:02Z
`;

  test("on 0.3: each generation, by the number and not by the text", () => {
    expect(old?.of(WAL, "")).toEqual({
      position: {
        a5a4654cb9aceecf: "000000000010:0000000000004152",
        "05a66b7b3f4d023e": "000000000002:0000000000000000",
      },
      at: new Date("2026-11-25T04:18:09Z"),
      copies: new Map(),
    });
    expect(old?.of(WAL.split("\n")[0] ?? "", "")).toMatchObject({ position: {}, at: undefined });
  });

  test.each([
    ["nothing", "", ""],
    ["0.3.9 that could list a part", WAL, "s3: cannot fetch wal segments: RequestError: send request failed"],
    [
      "0.3.13 that could list nothing",
      `${WAL.split("\n")[0]}\ntime=2026-11-25T04:18:09Z level=ERROR msg="cannot determine generations"\n`,
      "",
    ],
  ])("on 0.3 it is not known from %s", (_, stdout, stderr) => {
    expect(old?.of(stdout, stderr)).toBeUndefined();
  });

  test("on 0.5: the newest TXID of all levels", () => {
    const list = `level  min_txid          max_txid          size  created
0      0000000000000009  000000000000000a  1309  2026-11-25T04:18:01Z
9      0000000000000001  0000000000000007  1309  2026-11-25T04:18:05Z
`;
    const at = new Date("2026-11-25T04:18:01Z");
    const copies = new Map([["ltx/0/0000000000000009-000000000000000a.ltx", 1309]]);
    expect(now?.of(list, "")).toEqual({ position: { "": "000000000000000a" }, at, copies });
    expect(now?.of(list.split("\n")[0] ?? "", "")).toMatchObject({ position: {}, at: undefined });
    expect(now?.of("", "")).toBeUndefined();
  });
});

describe("configurationOf", () => {
  const replicaOf = (store: { endpoint?: string; region?: string }) =>
    JSON.parse(configurationOf({ dbpath: DB, s3: URL, historyHours: 24, ...store })).dbs[0].replicas[0];

  test("names the database and its replica", () => {
    expect(JSON.parse(configurationOf({ dbpath: DB, s3: URL, historyHours: 24 })).dbs).toEqual([
      expect.objectContaining({ path: DB, replicas: [{ url: URL, "sync-interval": "20ms" }] }),
    ]);
  });

  test("never checkpoints in a single call, and as litestream does where it goes on", () => {
    const continuous = { continuous: { syncIntervalSeconds: 2.5 } };
    const [once, goesOn] = [undefined, continuous].map(
      (beyond) => JSON.parse(configurationOf({ dbpath: DB, s3: URL, historyHours: 24 }, beyond)).dbs[0],
    );
    expect(once).toMatchObject({ "checkpoint-interval": "87600h", "min-checkpoint-page-count": 1e9 });
    expect(goesOn).toEqual({
      path: DB,
      "monitor-interval": "1000ms",
      replicas: [expect.objectContaining({ url: URL, "sync-interval": "2500ms" })],
    });
  });

  test.each([
    [24, "172800s", "86400s", "172800s"],
    [0, "86400s", "3600s", "7200s"],
    [0.5, "88200s", "3600s", "7200s"],
  ])(
    "keeps a snapshot from before the last %d h where it goes on",
    (historyHours, kept, interval, kept0_3) => {
      const { snapshot, dbs } = JSON.parse(
        configurationOf({ dbpath: DB, s3: URL, historyHours }, { continuous: { syncIntervalSeconds: 1 } }),
      );
      expect(snapshot).toEqual({ interval: "24h", retention: kept });
      expect(dbs[0].replicas[0]).toMatchObject({ "snapshot-interval": interval, retention: kept0_3 });
    },
  );

  test("removes what is older, in a run of its own, in which it does not checkpoint either", () => {
    const configured = (snapshot: boolean) =>
      JSON.parse(
        configurationOf(
          { dbpath: DB, s3: URL, historyHours: 24 },
          { upkeep: { retentionMs: 5000.5, snapshot } },
        ),
      );
    expect(configured(true)).toMatchObject({
      levels: [{ interval: "100ms" }],
      snapshot: { interval: "100ms", retention: "5001ms" },
      "l0-retention": "5001ms",
      dbs: [{ path: DB, "checkpoint-interval": "87600h" }],
    });
    expect(configured(false).snapshot).toEqual({ interval: "876000h", retention: "5001ms" });
  });

  test("has path style for a store of its own address", () => {
    expect(replicaOf({ endpoint: "http://127.0.0.1:9000", region: "garage" })).toMatchObject({
      endpoint: "http://127.0.0.1:9000",
      region: "garage",
      "force-path-style": true,
    });
    expect(replicaOf({ endpoint: "https://not-t3.storage.dev.example.com" })).toMatchObject({
      "force-path-style": true,
    });
  });

  test.each(["https://fly.storage.tigris.dev", "https://t3.storage.dev", "https://t3.storage.dev/"])(
    "has the bucket in the host name for Tigris: %s",
    (endpoint) => {
      expect(replicaOf({ endpoint })).toMatchObject({ endpoint, "force-path-style": false });
    },
  );
});

describe("evidence of a replication", () => {
  test("on 0.3 it is the written snapshot", () => {
    expect(OLD_SNAPSHOT).toMatch(V0_3.evidence);
    expect(NEW_SNAPSHOT).toMatch(V0_3.evidence);
  });

  test("on 0.5 it is the completion line", () => {
    expect(ONCE_COMPLETE).toMatch(V0_5.evidence);
    expect(`${ONCE_COMPLETE} txid=0000000000000001`).toMatch(V0_5.evidence);
  });

  test.each([
    ...[OLD_START, OLD_GENERATION, OLD_STOP, OLD_NOT_A_DB, OLD_SIGNATURE, OLD_BUCKET, OLD_UNREACHABLE].flat(),
    ...[NEW_START, NEW_SNAPSHOT_BEGINS, NEW_WAL, NEW_STOP, NEW_NOT_A_DB, NEW_SIGNATURE].flat(),
  ])("on 0.3 it is not %s", (line) => {
    expect(line).not.toMatch(V0_3.evidence);
  });

  test.each([ONCE_START, ONCE_SYNC, ONCE_STOP, ONCE_NOT_A_DB, ONCE_BUCKET, SHUTDOWN_SYNC].flat())(
    "on 0.5 it is not %s",
    (line) => {
      expect(line).not.toMatch(V0_5.evidence);
    },
  );

  const SNAPSHOT_WORDS = "(s3): snapshot written 0123456789abcdef/00000000";
  const INFO_WORDS = "2026/11/24 09:29:07 INFO snapshot written db=";
  test.each([
    "initialized db: /data/snapshot written.db",
    `initialized db: /data/${SNAPSHOT_WORDS}/a.db`,
    `/data/${SNAPSHOT_WORDS}/a.db: sync error: file is not a database`,
    `/data/${SNAPSHOT_WORDS}/a.db: sync: new generation "456a9220810fe3f2", no generation exists`,
    `replicating to: name="s3" type="s3" bucket="b" path="${SNAPSHOT_WORDS}" region="us-east-1" endpoint="" sync-interval=1s`,
    '2026/11/24 09:29:06 INFO initialized db path="/data/snapshot written.db"',
    `2026/11/24 09:29:06 INFO initialized db path="/data/${SNAPSHOT_WORDS}/a.db"`,
    `2026/11/24 09:29:06 INFO initialized db path="/data/${INFO_WORDS}/a.db"`,
    `2026/11/24 09:29:01 ERROR sync error db="/data/${INFO_WORDS}/a.db" error="file is not a database"`,
    `initialized db: /data/${INFO_WORDS}/a.db`,
  ])("on 0.3 a name that looks like it is none: %s", (line) => {
    expect(line).not.toMatch(V0_3.evidence);
  });

  test.each([
    'time=2026-11-24T09:38:33.855Z level=INFO msg="initialized db" path="/data/one-shot replication complete/a.db"',
    'time=2026-11-24T09:38:33.855Z level=INFO msg="syncing database" path="/data/level=INFO msg=\\"one-shot replication complete\\" /a.db"',
    "Error: sync database /data/one-shot replication complete/a.db: file is not a database (26)",
    'Error: sync database /data/time=x level=INFO msg="one-shot replication complete"/a.db: file is not a database (26)',
    'time=2026-11-24T09:33:37.480Z level=ERROR msg="one-shot replication complete"',
    'time=2026-11-24T09:33:37.480Z level=INFO msg="one-shot replication complete with errors"',
  ])("on 0.5 a name that looks like it is none: %s", (line) => {
    expect(line).not.toMatch(V0_5.evidence);
  });
});

describe("what a run of 0.5 has read", () => {
  const said = (msg: string) => `time=2026-11-25T00:00:23.298Z level=DEBUG msg=${msg}`;
  const verify = (matches: boolean) =>
    said(`verify system=store db=db.sqlite saltMatch=${matches} prevWALOffset=144232`);
  const sync = (rest = "", db = "db=db.sqlite") =>
    said(`sync system=store ${db} txid=0000000000000002 offset=32${rest}`);
  const chkpt = (matches: boolean) => [verify(matches), sync(" chkpt=true")];
  const snapshot = said("snapshot system=store db=db.sqlite txid=0000000000000002 walEndOffset=4152");
  const truncated = ' snap=true reason="wal truncated by another process"';

  test.each([
    ["the first copy", "whole", [sync(" snap=true")]],
    [
      "the first copy, and what litestream itself wrote then",
      "whole",
      [sync(" snap=true"), verify(true), sync()],
    ],
    ["a copy because it can't go on", "whole", [sync(truncated)]],
    ["a copy after a gap", "whole", [verify(false), sync(), verify(false), sync(truncated)]],
    ["the -wal that it knows", "added", [verify(true), sync()]],
    ["as 0.5.8 and 0.5.9 print it", "added", [verify(true), said("sync txid=0000000000000002 offset=32")]],
    ["its own checkpoint, as 0.5.10 makes it", "gap", [...chkpt(true), ...chkpt(false)]],
    ["its own checkpoint, as 0.5.17 makes it", "added", [...chkpt(true), ...chkpt(true), ...chkpt(false)]],
    ["another one after that", "gap", [...chkpt(true), ...chkpt(true), ...chkpt(false), ...chkpt(false)]],
    [
      "one that only looks like that",
      "gap",
      [...chkpt(true), verify(true), sync(), ...chkpt(true), ...chkpt(false)],
    ],
    ["a snapshot after a gap", "whole", [verify(false), sync(), snapshot, verify(true), sync()]],
    ["a gap after a snapshot", "gap", [verify(true), sync(), snapshot, ...chkpt(true), ...chkpt(false)]],
    ["a -wal that another one began anew", "gap", [verify(false), sync()]],
    ["that, and then more", "gap", [verify(false), sync(), verify(true), sync()]],
    ["that, after a copy", "gap", [sync(" snap=true"), verify(false), sync()]],
    ["one match is for one synchronisation", "gap", [verify(true), sync(), sync()]],
    ["a synchronisation without a word about the -wal", "gap", [sync()]],
    ["a database that is called like a copy", "gap", [sync("", 'db="db snap=true x"')]],
    ["nothing", undefined, [verify(true), verify(false)]],
    ["other lines", undefined, [...ONCE_START, ...ONCE_SYNC, ONCE_COMPLETE, ...ONCE_STOP]],
    ["a line of another form", undefined, [`${sync(" snap=true")} and more`]],
  ])("%s: %s", (_, is, lines) => {
    // As often as the lines say that the -wal was begun anew.
    let salt = 0xffffffff;
    const reading = V0_5.reading?.(() => salt);
    for (const line of lines) {
      if (line.includes("saltMatch=false") && is !== "gap") salt = (salt + 1) >>> 0;
      reading?.see(line);
    }
    expect(reading?.end()).toBe(is);
  });

  const added = [verify(true), sync()];
  const whole = [sync(" snap=true")];
  test("which transactions it is about, and its snapshot", () => {
    const reading = V0_5.reading?.(() => 7);
    expect([reading?.first, reading?.snapshot]).toEqual([undefined, undefined]);
    for (const line of [sync(), snapshot.replace("2 wal", "a wal"), sync().replace("2 off", "b off")]) {
      reading?.see(line);
    }
    expect([reading?.first, reading?.snapshot]).toEqual([2n, 10n]);
  });

  test.each([
    ["added", "the same -wal all the time", added, [7, 7]],
    ["gap", "begun anew after litestream's look at it", added, [7, 8]],
    ["gap", "another -wal", added, [7, 1234]],
    ["gap", "no -wal before", added, [undefined, 7]],
    ["gap", "no -wal after", added, [7, undefined]],
    ["whole", "begun anew before a whole copy", whole, [7, 8, 8]],
    ["whole", "no -wal before a whole copy", whole, [undefined, 8, 8]],
    ["gap", "begun anew after a whole copy", [...whole, ...added], [7, 7, 8]],
    ["whole", "begun anew before a snapshot", [...added, snapshot, ...added], [7, 8, 8]],
    [
      "gap",
      "begun anew twice around its own checkpoint",
      [...chkpt(true), ...chkpt(true), ...chkpt(false)],
      [7, 9],
    ],
    [
      "gap",
      "not begun anew at its own checkpoint",
      [...chkpt(true), ...chkpt(true), ...chkpt(false)],
      [7, 7],
    ],
  ])("%s: %s", (end, _, lines, salts) => {
    const seen = [...salts];
    const reading = V0_5.reading?.(() => seen.shift());
    for (const line of lines) reading?.see(line);
    expect(reading?.end()).toBe(end);
    expect(seen).toEqual([]);
  });
});

describe("what the list of a replica tells on 0.5", () => {
  const HEADER = "level  min_txid          max_txid          size  created\n";
  const row = (level: number, min: number, max: number) =>
    `${level}      ${min.toString(16).padStart(16, "0")}  ${max.toString(16).padStart(16, "0")}  719   2026-11-24T16:51:42Z\n`;

  test.each([
    ["none", "level  min_txid  max_txid  size  created\n"],
    ["none", "min_txid  max_txid  size  created\n"],
    ["whole", HEADER + row(0, 1, 1) + row(0, 2, 2) + row(0, 3, 300)],
    ["whole", HEADER + row(0, 5, 5) + row(1, 3, 4) + row(9, 1, 2)],
    ["whole", HEADER + row(0, 9, 9) + row(0, 2, 2) + row(9, 1, 9)],
    ["whole", `${HEADER.slice(7)}${row(0, 1, 1).slice(7)}`],
    ["broken", HEADER + row(0, 2, 2) + row(0, 3, 3)],
    ["broken", HEADER + row(0, 1, 1) + row(0, 3, 3)],
    ["broken", HEADER + row(9, 1, 4) + row(0, 6, 6)],
    [undefined, ""],
    [undefined, "usage: ltx\n"],
    [undefined, `${HEADER}nothing of the kind\n`],
    [undefined, row(0, 1, 1)],
  ])("%s", (chain, stdout) => {
    expect(chainOf(stdout)).toBe(chain);
  });

  const written = (first: bigint, position: bigint, snapshot?: bigint) => ({ first, position, snapshot });
  test.each([
    ["whole", row(0, 1, 1) + row(0, 2, 2) + row(0, 3, 3), written(3n, 3n)],
    ["whole", row(9, 1, 2) + row(0, 2, 2) + row(0, 3, 3), written(3n, 3n)],
    ["whole", row(1, 1, 2) + row(9, 1, 3) + row(0, 3, 3), written(3n, 3n, 3n)],
    ["ahead", row(0, 1, 1) + row(0, 2, 2) + row(9, 1, 3), written(2n, 2n)],
    ["ahead", row(9, 1, 3) + row(0, 1, 1), written(1n, 1n, 1n)],
    // The older snapshot of what was written anew.
    ["broken", row(9, 1, 3) + row(0, 2, 2) + row(0, 3, 3), written(3n, 3n)],
    ["broken", row(9, 1, 3) + row(0, 3, 3) + row(0, 4, 4), written(3n, 4n)],
    ["broken", row(9, 1, 3) + row(9, 1, 2) + row(0, 3, 3), written(2n, 3n, 2n)],
    ["broken", row(1, 1, 3) + row(0, 3, 3), written(3n, 3n)],
    // What was written is not there.
    ["broken", row(0, 1, 1) + row(0, 2, 2), written(3n, 3n)],
    ["broken", row(0, 1, 1) + row(0, 3, 3), written(3n, 3n)],
    ["broken", row(9, 1, 1), { first: undefined, position: 1n, snapshot: undefined }],
    ["none", "", written(1n, 1n)],
  ])("%s: %s, written %o", (chain, rows, call) => {
    expect(chainOf(HEADER + rows, call)).toBe(chain);
  });
});

describe("the objects of a replica on 0.5", () => {
  // Recorded: 0.5.17, after three lives of a database of 10 MB, a snapshot and a compaction.
  const LIST = `level  min_txid          max_txid          size      created
0      0000000000000003  0000000000000003  10251593  2026-11-25T04:40:50Z
1      0000000000000001  0000000000000003  10251594  2026-11-25T04:40:53Z
9      0000000000000001  0000000000000003  10251595  2026-11-25T04:40:52Z
`;

  test("are read with their size and time", () => {
    const created = Date.UTC(2026, 10, 25, 4, 40, 50);
    expect(objectsOf(LIST)).toEqual([
      { level: 0, min: 3n, max: 3n, size: 10251593, created },
      { level: 1, min: 1n, max: 3n, size: 10251594, created: created + 3000 },
      { level: 9, min: 1n, max: 3n, size: 10251595, created: created + 2000 },
    ]);
  });

  test("are none where the replica is empty, and not known where it is no list", () => {
    expect(objectsOf("level  min_txid  max_txid  size  created\n")).toEqual([]);
    expect(objectsOf("usage: ltx\n")).toBeUndefined();
  });

  test("without a size or time decide nothing, and still show the chain", () => {
    const list = LIST.replace(/\d{8} {2}\S+Z/g, "10.2MB  just now");
    const objects = objectsOf(list) ?? [];
    expect(objects).toMatchObject([{ size: Number.NaN, created: Number.NaN }, {}, {}]);
    expect(chainOf(list)).toBe("whole");
    expect(upkeepOf(objects, Number.NaN, 0)).toEqual({ snapshot: false, before: undefined });
    expect(upkeepOf(objects, 1, 0)).toEqual({ snapshot: false, before: undefined });
  });

  const object = (level: number, min: number, max: number, size = 100, created = max): ReplicaObject => ({
    level,
    min: BigInt(min),
    max: BigInt(max),
    size,
    created,
  });

  test.each([
    ["each life's", [object(0, 1, 1), object(0, 2, 2), object(0, 3, 3)], ["0:1", "0:2", "0:3"]],
    ["the newest snapshot", [object(0, 1, 1), object(0, 2, 2), object(9, 1, 1), object(9, 1, 2)], ["9:2"]],
    ["what came after it", [object(0, 3, 3), object(0, 2, 2), object(9, 1, 2)], ["9:2", "0:3"]],
    [
      "what reaches furthest",
      [object(0, 1, 1), object(0, 2, 2), object(0, 3, 3), object(1, 1, 2)],
      ["1:2", "0:3"],
    ],
    ["a compaction that overlaps", [object(9, 1, 3), object(1, 2, 5), object(0, 4, 4)], ["9:3", "1:5"]],
    ["nothing after a gap", [object(0, 1, 1), object(0, 3, 3)], ["0:1"]],
    ["nothing of an empty replica", [], []],
  ])("restore reads %s", (_, objects, expected) => {
    expect(restorePlan(objects).map(({ level, max }) => `${level}:${max}`)).toEqual(expected);
  });

  test("a whole copy's size is that of the call's snapshot, else of its first object", () => {
    const objects = [object(0, 1, 1, 90), object(0, 2, 2, 100), object(0, 3, 3, 1), object(9, 1, 3, 95)];
    expect(copySize(objects, { first: 2n, snapshot: undefined })).toBe(100);
    expect(copySize(objects, { first: 2n, snapshot: 3n })).toBe(95);
    expect(copySize(objects, { first: undefined, snapshot: undefined })).toBeUndefined();
  });

  test.each([
    [false, "two copies, and what was added", [object(9, 1, 1), object(0, 2, 2), object(0, 3, 3, 10)]],
    [true, "three copies", [object(9, 1, 1), object(0, 2, 2), object(0, 3, 3)]],
    [true, "many small objects", Array.from({ length: 30 }, (_, i) => object(0, i + 1, i + 1, 10))],
    [false, "one object, larger than the database is now", [object(9, 1, 1, 1000)]],
  ])("a snapshot is due: %s: %s", (due, _, objects) => {
    expect(upkeepOf(objects, 100, 0).snapshot).toBe(due);
  });

  test.each([
    [undefined, "no snapshot", [object(0, 1, 1), object(0, 2, 2), object(0, 3, 3)], 0],
    [
      3,
      "the newest snapshot, no history",
      [object(0, 1, 1), object(0, 2, 2), object(9, 1, 3), object(0, 4, 4)],
      0,
    ],
    [undefined, "too little", [object(0, 2, 2), object(9, 1, 3), object(0, 4, 4)], 0],
    [
      undefined,
      "all of it within the history",
      [object(0, 1, 1), object(0, 2, 2), object(9, 1, 3), object(0, 4, 4)],
      2,
    ],
    [
      3,
      "the snapshot at its beginning",
      [object(0, 1, 1), object(0, 2, 2), object(9, 1, 3), object(9, 1, 6)],
      3,
    ],
    [
      undefined,
      "too little beside what stays",
      [
        ...[object(0, 1, 1), object(0, 2, 2), object(9, 1, 3)],
        ...[4, 5, 6, 7, 8].map((n) => object(0, n, n)),
      ],
      5,
    ],
    [undefined, "compacted objects do not count", [object(1, 1, 1), object(1, 2, 2), object(9, 1, 3)], 0],
  ])("what is before %s may go: %s", (before, _, objects, historyMs) => {
    expect(upkeepOf(objects, 100, historyMs).before).toBe(before);
  });

  // What 0.5.10 and 0.5.17 were seen to do with `levels`, `snapshot.retention` and `l0-retention`.
  function tidied(objects: ReplicaObject[], { snapshot, before }: ReturnType<typeof upkeepOf>, now: number) {
    const newest = objects.filter(({ level }) => level === 0).at(-1);
    const end = Number(newest?.max);
    const all = snapshot ? [...objects, object(9, 1, end, 100, now)] : objects;
    if (before === undefined) return all;
    const compacted = Math.max(0, ...all.filter(({ level }) => level === 1).map(({ max }) => Number(max)));
    const [base] = all.filter(({ level, created }) => level === 9 && created >= before);
    return [...all, object(1, compacted + 1, end, 100, now)].filter(
      (one) => one.created >= before || one === newest || (one.level === 1 && one.max >= (base?.max ?? 0n)),
    );
  }

  test.each([
    ["none", 0, 11],
    ["of 10 lives", 1000, 35],
  ])("over 100 lives boots stay short and the bucket small, and history stays: %s", (_, historyMs, most) => {
    let objects: ReplicaObject[] = [];
    const states: { at: number; max: bigint }[] = [];
    let uploads = 0;
    for (let life = 1; life <= 100; life += 1) {
      const now = life * 100;
      const copy = object(0, 2 * life - 1, 2 * life - 1, 100, now);
      const added = object(0, 2 * life, 2 * life, 1, now);
      objects = [...objects, copy, added];
      states.push({ at: now + 50, max: added.max });
      const known = objects.length;
      const upkeep = upkeepOf(objects, 100, historyMs);
      objects = tidied(objects, upkeep, now + 20);
      uploads += 1 + Number(upkeep.snapshot) + Number(upkeep.before !== undefined);
      expect(objects.length).toBeLessThan(known + 3);

      const bytes = (some: ReplicaObject[]) => some.reduce((sum, { size }) => sum + size, 0);
      expect(bytes(restorePlan(objects))).toBeLessThan(250);
      expect(bytes(objects)).toBeLessThan(most * 100);
      for (const { at, max } of states.filter((state) => state.at >= now - historyMs)) {
        const plan = restorePlan(objects.filter(({ created }) => created < at));
        expect(plan.at(-1)?.max).toBe(max);
      }
    }
    expect(uploads).toBeLessThan(200);
  });
});

describe("the end of the first synchronisation on 0.3", () => {
  test("is the snapshot's line on ≤ 0.3.9, the WAL segment's on later ones", () => {
    expect(OLD_SNAPSHOT).toMatch(V0_3.settled);
    expect(NEW_WAL).toMatch(V0_3.settled);
    expect(NEW_SNAPSHOT).not.toMatch(V0_3.settled);
    expect(NEW_WAL.replace("segment written", "segment")).not.toMatch(V0_3.settled);
  });
});

describe("failure of a replication on 0.3, after which it does not try again", () => {
  test.each([
    OLD_NOT_A_DB,
    "/data/a.db: sync error: unable to open database file: is a directory",
    OLD_SIGNATURE[0],
    OLD_BUCKET[0],
    OLD_UNREACHABLE[0],
    NEW_NOT_A_DB,
    NEW_SIGNATURE,
    NEW_BUCKET,
    NEW_UNREACHABLE,
  ])("%s", (line) => {
    expect(line).toMatch(V0_3.failure);
  });

  test.each(
    [OLD_START, OLD_GENERATION, OLD_SNAPSHOT, OLD_STOP, NEW_START, NEW_SNAPSHOT, NEW_WAL, NEW_STOP].flat(),
  )("not %s", (line) => {
    expect(line).not.toMatch(V0_3.failure);
  });

  test("on 0.5 no line is: it ends by itself", () => {
    for (const line of [ONCE_BUCKET, SHUTDOWN_SYNC, NEW_SIGNATURE, ""])
      expect(line).not.toMatch(V0_5.failure);
  });

  test("a folder that looks like it is none", () => {
    expect('2026/11/24 09:29:06 INFO initialized db path="/data/x: sync error: y/a.db"').not.toMatch(
      V0_3.failure,
    );
  });
});

describe("somebody's signal to litestream 0.3", () => {
  test("shows in the line that says so", () => {
    expect(OLD_STOP[0]).toMatch(V0_3.stopping);
    expect(NEW_STOP[0]).toMatch(V0_3.stopping);
  });

  test.each([
    ...OLD_START,
    ...NEW_START,
    OLD_SNAPSHOT,
    NEW_SNAPSHOT,
    OLD_STOP[1],
    NEW_STOP[1],
    "initialized db: /data/signal received, litestream shutting down/a.db",
    '2026/11/24 09:29:06 INFO initialized db path="/data/signal received, litestream shutting down/a.db"',
  ])("does not show in %s", (line) => {
    expect(line).not.toMatch(V0_3.stopping);
  });
});

describe("a replica path without a backup", () => {
  test.each([
    ["0.3.9", "no matching backups found"],
    ["0.3.13", 'time=2026-11-24T10:48:49.385Z level=INFO msg="no matching backups found"'],
    ["0.5.17", 'time=2026-11-24T10:48:52.385Z level=INFO msg="no matching backups found"'],
  ])("is said by %s with -if-replica-exists", (_, line) => {
    expect(line).toMatch(NO_BACKUP);
  });

  test.each([
    '2026/11/24 10:48:49 ERROR failed to run error="no matching backups found"',
    "Error: no matching backup files available",
    'time=2026-11-24T10:48:51.822Z level=ERROR msg="failed to run" error="no matching backup files available"',
    'cannot create "/data/no matching backups found": permission denied',
    "restoring to /data/no matching backups found",
    'time=2026-11-24T10:48:52.385Z level=INFO msg="restoring" path="/x level=INFO msg=\\"no matching backups found"',
    ...OLD_SIGNATURE,
    ...OLD_BUCKET,
    NEW_RESTORE_REFUSED,
    ONCE_SIGNATURE,
    ONCE_UNREACHABLE,
  ])("is not said by %s", (line) => {
    expect(line).not.toMatch(NO_BACKUP);
  });
});

describe("complaintOf", () => {
  test.each<[string, string, readonly string[], string]>([
    [
      "0.3.9",
      "not-a-database",
      [...OLD_START, OLD_NOT_A_DB, ...OLD_STOP],
      "sync error: file is not a database",
    ],
    [
      "0.3.9",
      "not-a-database",
      [...OLD_START, "/data/a.db: sync error: unable to open database file: is a directory", ...OLD_STOP],
      "sync error: unable to open database file: is a directory",
    ],
    [
      "0.3.9",
      "credentials",
      [...OLD_START, OLD_GENERATION, ...OLD_SIGNATURE],
      "monitor error: SignatureDoesNot",
    ],
    ["0.3.9", "bucket", [...OLD_START, OLD_GENERATION, ...OLD_BUCKET], "monitor error: NoSuchBucket"],
    ["0.3.9", "unreachable", [...OLD_START, ...OLD_UNREACHABLE, ...OLD_STOP], "caused by: Get"],
    ["0.3.9", "no-backup", ["no matching backups found"], "no matching backups found"],
    ["0.3.13", "not-a-database", [...NEW_START, NEW_NOT_A_DB, ...NEW_STOP], "file is not a database"],
    [
      "0.3.13",
      "credentials",
      [...NEW_START, NEW_SIGNATURE, ...NEW_STOP],
      "SignatureDoesNotMatch: The request",
    ],
    ["0.3.13", "credentials", [...NEW_START, ...NEW_STOP, NEW_KEY], "XAdminUserNotFound: No user exists"],
    ["0.3.13", "bucket", [...NEW_START, NEW_BUCKET, ...NEW_STOP], "NoSuchBucket: The specified bucket"],
    ["0.3.13", "bucket", [NEW_RESTORE_REFUSED], "cannot fetch generations: NoSuchBucket"],
    [
      "0.3.13",
      "unreachable",
      [...NEW_START, NEW_UNREACHABLE, ...NEW_STOP],
      "RequestError: send request failed",
    ],
    [
      "0.3.13",
      "no-backup",
      ['2026/11/24 10:48:49 ERROR failed to run error="no matching backups found"'],
      "no matching backups found",
    ],
    ["0.5.5", "bucket", [CONTINUOUS_BUCKET_0_5_5], "write ltx file: s3: upload to a.db/0000/"],
    ["0.5.5", "unreachable", [CONTINUOUS_UNREACHABLE_0_5_5], "write ltx file: s3: upload to a.db/0000/"],
    [
      "0.5.10",
      "not-a-database",
      [...ONCE_START, ...ONCE_STOP, ONCE_NOT_A_DB_0_5_10],
      "sync database /data/a.db: file",
    ],
    [
      "0.5.10",
      "credentials",
      [...ONCE_START, ...ONCE_STOP, ONCE_SIGNATURE_0_5_10],
      "sync database /data/a.db: check",
    ],
    [
      "0.5.10",
      "no-backup",
      [
        'time=2026-11-24T10:48:51.822Z level=ERROR msg="failed to run" error="no matching backup files available"',
      ],
      "no matching backup files available",
    ],
    [
      "0.5.17",
      "not-a-database",
      [...ONCE_START, ...ONCE_STOP, ONCE_NOT_A_DB],
      "sync database /data/a.db: file",
    ],
    [
      "0.5.17",
      "credentials",
      [...ONCE_START, ...ONCE_STOP, ONCE_SIGNATURE],
      "sync database /data/a.db: check",
    ],
    // stderr may be read before the last of stdout.
    ["0.5.17", "credentials", [ONCE_KEY, ...ONCE_START, ...ONCE_STOP], "sync database /data/a.db: check"],
    ["0.5.17", "bucket", [...ONCE_START, ONCE_BUCKET, ...ONCE_STOP], "sync database /data/a.db: check"],
    [
      "0.5.17",
      "unreachable",
      [...ONCE_START, ...ONCE_STOP, ONCE_UNREACHABLE],
      "sync database /data/a.db: check",
    ],
    [
      "0.5.17",
      "no-backup",
      ["Error: no matching backup files available"],
      "no matching backup files available",
    ],
    ["0.5.17", "failed", [...ONCE_START, SHUTDOWN_SYNC], "no position, waiting for data"],
    [
      "0.5.17",
      "failed",
      ["Error: sync database /data/a.db: set PERSIST_WAL: get connection: unable to open database file (14)"],
      "sync database /data/a.db: set PERSIST_WAL",
    ],
  ])("%s: %s", (_, reason, lines, words) => {
    const complaint = complaintOf(lines, NAMES);
    expect(complaint.reason).toBe(reason);
    expect(complaint.words).toMatch(startingWith(words));
  });

  test("gives an escaped error in plain words on one line", () => {
    expect(complaintOf([NEW_UNREACHABLE], NAMES).words).toBe(
      'RequestError: send request failed caused by: Get "http://localhost:7071/backups?delimiter=%2F&prefix=a.db%2Fgenerations%2Feb83511f6a7a320c%2Fsnapshots%2F": dial tcp 127.0.0.1:7071: connect: connection refused',
    );
  });

  test("says what to do about a database that is locked", () => {
    const line = '2026/11/24 21:40:07 ERROR sync error db=/data/a.db error="database is locked"';
    expect(complaintOf([line], [DB, URL])).toMatchObject({
      reason: "failed",
      words: "database is locked (another connection holds it: close it)",
    });
  });

  test("prefers the complaint that it understands to a later one that it does not", () => {
    const lines = [ONCE_SIGNATURE, SHUTDOWN_SYNC];
    expect(complaintOf(lines, NAMES).reason).toBe("credentials");
  });

  test("takes the last of those that it understands", () => {
    expect(complaintOf([NEW_UNREACHABLE, NEW_SIGNATURE], NAMES).reason).toBe("credentials");
    expect(complaintOf([NEW_SIGNATURE, NEW_UNREACHABLE], NAMES).reason).toBe("unreachable");
  });

  test.each([
    ["0.3.9", [...OLD_START, OLD_GENERATION, OLD_SNAPSHOT, ...OLD_STOP]],
    ["0.3.13", [...NEW_START, NEW_SNAPSHOT_BEGINS, NEW_SNAPSHOT, NEW_WAL, ...NEW_STOP]],
    ["0.5.17", [...ONCE_START, ONCE_SYNC, ONCE_COMPLETE, ...ONCE_STOP]],
    ["silence", []],
  ])("has no words where there is nothing to complain of: %s", (_, lines) => {
    expect(complaintOf(lines, NAMES)).toEqual({ reason: "failed", words: "", said: false });
  });

  test("what it says of being stopped is no complaint", () => {
    const words = "caused by: context canceled";
    expect(complaintOf([...OLD_STOP, words], NAMES)).toEqual({ reason: "failed", words, said: false });
    expect(complaintOf([NEW_UNREACHABLE, words], NAMES).reason).toBe("unreachable");
  });

  test("0.5 that asks the same again and again can't reach the store", () => {
    const lines = [...ONCE_START, asked("53.085", "0000"), asked("53.484", "0000"), asked("59.834", "0000")];
    expect(complaintOf(lines, NAMES)).toMatchObject({
      reason: "unreachable",
      words: expect.stringContaining("again and again"),
      said: false,
    });
  });

  test("0.5 that asks for one thing after another is at work", () => {
    expect(complaintOf([asked("53.085", "0009"), asked("53.086", "0008")], NAMES).words).toBe("");
    expect(complaintOf([asked("53.085", "0009")], NAMES).words).toBe("");
  });

  test.each(["Forbidden", "NoSuchBucket", "AccessDenied", "connection refused", "file is not a database"])(
    "a database or URL with %s in its name sets no reason",
    (word) => {
      const db = `/data/${word}/a.db`;
      const url = `s3://backups/${word}/a.db`;
      const lines = [
        `initialized db: ${db}`,
        `error closing db: path=${db} err=disk I/O error`,
        `Error: sync database ${db} to ${url}: disk I/O error (10)`,
      ];
      for (const line of lines) expect(complaintOf([line], [db, url]).reason).toBe("failed");
    },
  );

  test("a name does not stand in the way of the reason", () => {
    const db = "/data/Forbidden/a.db";
    const line = `Error: sync database ${db}: file is not a database (26)`;
    expect(complaintOf([line], [db, URL]).reason).toBe("not-a-database");
  });

  test.each([
    ["0.3.9", OLD_UNREACHABLE.join("\n").replaceAll("a.db%2F", "NoSuchBucket%2Fa.db%2F").split("\n")],
    ["0.3.13", [NEW_UNREACHABLE.replace("prefix=a.db", "prefix=Forbidden%2Fa.db")]],
    ["0.5.5", [CONTINUOUS_UNREACHABLE_0_5_5.replace("upload to a.db", "upload to Forbidden/a.db")]],
    ["0.5.17", [ONCE_UNREACHABLE.replace("prefix=a.db", "prefix=AccessDenied%2Fa.db")]],
  ])("a path in the bucket that looks like a refusal is none: %s", (_, lines) => {
    const url = "s3://backups.localhost:7071";
    const names = ["NoSuchBucket", "Forbidden", "AccessDenied"].map((word) => `${url}/${word}/a.db`);
    expect(complaintOf(lines, [DB, ...names]).reason).not.toMatch(/credentials|bucket/);
  });

  test("a database called `snapshot written.db` does not hide its own complaint", () => {
    const db = "/data/snapshot written.db";
    const lines = [`${db}: sync error: file is not a database`];
    expect(complaintOf(lines, [db, URL]).reason).toBe("not-a-database");
  });
});

// Recorded: `replicate -config` in continuous use, 0.3.13, 0.5.10 and 0.5.17.
describe("what goes on says when all is up", () => {
  // Each line's number stands for the look from before it, and its negative for one taken when it is heard.
  const looksBy = (commands: keyof typeof COMMANDS, help: keyof typeof REPLICATE_HELP, lines: string[]) => {
    let at = 0;
    const follow = dialectOf(commands, help).continuous?.following({ now: () => -at, before: () => at });
    return lines.map((line) => {
      at += 1;
      return follow?.(line);
    });
  };
  const heardBy = (...args: Parameters<typeof looksBy>) =>
    looksBy(...args).map((heard) => (typeof heard === "object" ? "synced" : heard));
  const AT = "time=2026-11-25T08:03:15.644Z level=";

  test("0.3.13: at each upload of the WAL, not at the snapshot before it", () => {
    const lines = [
      `${AT}INFO msg="snapshot written" db=${DB} replica=s3 position=9625eeab1c963301/00000000:107152 elapsed=10ms sz=2553`,
      `${AT}INFO msg="write wal segment" db=${DB} replica=s3 position=9625eeab1c963301/00000000:0`,
      `${AT}INFO msg="wal segment written" db=${DB} replica=s3 position=9625eeab1c963301/00000000:0 elapsed=18ms sz=107152`,
      `${AT}ERROR msg="monitor error" db=${DB} replica=s3 error="client write: SlowDown: a fault"`,
    ];
    expect(heardBy("0.3", "0.5.5", lines)).toEqual([undefined, undefined, "synced", "failing"]);
  });

  const system = "system=store db=a.db";
  const read = `${AT}DEBUG msg=sync ${system} txid=0000000000000003 offset=111272`;
  const goal = (has: number, wanted: number, level = "DEBUG") =>
    `${AT}${level} msg="replica sync" ${system} replica=s3 txid.replica=000000000000000${has} txid.db=000000000000000${wanted}`;
  const uploaded = (n: number, level = 0) =>
    `${AT}INFO msg="ltx file uploaded" ${system} replica=s3 level=${level} minTXID=000000000000000${n} maxTXID=000000000000000${n} size=2567`;

  test("0.5: once the last of several transactions is up, or nothing is left", () => {
    const lines = [read, goal(2, 4), uploaded(3), uploaded(4, 1), uploaded(4), goal(4, 4, "INFO")];
    expect(heardBy("0.5.17", "0.5.10", lines)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      "synced",
      "synced",
    ]);
  });

  // A history that the lives found: it uploads while it reads.
  test("0.5: not while a whole copy is being made, nor before that is up", () => {
    const copies = `${AT}DEBUG msg=sync ${system} txid=0000000000000005 offset=8608 snap=true reason="wal overwritten"`;
    const made = `${AT}DEBUG msg="db sync" ${system} status=ok`;
    const lines = [copies, goal(4, 4), made, goal(4, 4), goal(4, 5), uploaded(5), goal(5, 5)];
    const not = undefined;
    expect(heardBy("0.5.17", "0.5.10", lines)).toEqual([not, not, not, not, not, "synced", "synced"]);
  });

  test("0.5: nor before a transaction that it has made is up; a reading that found nothing makes none", () => {
    const reads = (n: number) => `${AT}DEBUG msg=sync ${system} txid=000000000000000${n} offset=8608`;
    const made = `${AT}DEBUG msg="db sync" ${system} status=ok`;
    const lines = [reads(5), goal(4, 4), made, goal(4, 4), goal(4, 5), uploaded(5), reads(6), goal(5, 5)];
    const not = undefined;
    const up = "synced";
    expect(heardBy("0.5.17", "0.5.10", lines)).toEqual([not, up, not, not, not, up, not, up]);
  });

  // CI found one: a commit just after the reading, and a store that was silent from then on, which nobody noticed.
  test("0.5: covers what was there before it began to read, and what that has come to", () => {
    const reads = (n: number) => `${AT}DEBUG msg=sync ${system} txid=000000000000000${n} offset=8608`;
    const made = `${AT}DEBUG msg="db sync" ${system} status=ok`;
    const lines = [reads(5), made, goal(4, 5), reads(6), uploaded(5), made, goal(5, 6), uploaded(6)];
    const not = undefined;
    // The upload of the fifth says nothing of the reading that has only begun.
    const begun = [not, not, not, not, { synced: 1 }, not, not, { synced: 4 }];
    expect(looksBy("0.5.17", "0.5.10", lines)).toEqual(begun);
    const idle = [reads(5), goal(4, 4), reads(5), goal(4, 4)];
    expect(looksBy("0.5.17", "0.5.10", idle)).toEqual([not, { synced: 0 }, not, { synced: 1 }]);
    const error = `${AT}ERROR msg="monitor error" ${system} error="disk I/O error"`;
    const failed = [reads(5), error, reads(5), goal(4, 4), reads(5), goal(4, 4)];
    const after = [not, "failing", not, { synced: 0 }, not, { synced: 3 }];
    expect(looksBy("0.5.17", "0.5.10", failed)).toEqual(after);
  });

  test("0.5: not where it has not read the database since an error", () => {
    const error = `${AT}ERROR msg="sync error" ${system} error="disk I/O error"`;
    const compaction = `${AT}ERROR msg="compaction failed" ${system} error="EOF"`;
    const lines = [goal(4, 4), read, goal(4, 4), compaction, error, goal(4, 4), read, goal(4, 4)];
    expect(heardBy("0.5.17", "0.5.10", lines)).toEqual([
      undefined,
      undefined,
      "synced",
      undefined,
      "failing",
      undefined,
      undefined,
      "synced",
    ]);
  });

  test("≤ 0.3.9 is known by its first line: it does not say so", () => {
    const mute = dialectOf("0.3", "0.5.5").continuous?.mute;
    expect("litestream (development build)").toMatch(mute ?? "");
    expect("litestream v0.3.9").toMatch(mute ?? "");
    expect(`${AT}INFO msg=litestream version=v0.3.13`).not.toMatch(mute ?? "");
  });
});

function startingWith(words: string): RegExp {
  return new RegExp(`^${words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`);
}
