import { describe, expect, test } from "vitest";
import { refusesAsS3, storeAddress, withBucket } from "../../src/litestream/dialect.ts";
import { described, isS3 } from "../../src/litestream/store-answer.ts";

const HEAD = '<?xml version="1.0" encoding="UTF-8"?>';
const LIST = `${HEAD}\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name></ListBucketResult>`;
const REFUSAL = `${HEAD}\n<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>`;

describe("what only an S3 store says", () => {
  test.each([
    ["a list", LIST],
    ["a refusal", REFUSAL],
    ["a refusal after a byte order mark", `\ufeff${REFUSAL}`],
    ["a refusal without a declaration", "<Error>\n  <Code> NoSuchBucket </Code>\n</Error>"],
    ["a refusal with a code of a store's own", "<Error><Code>XMinioServerNotInitialized</Code></Error>"],
    ["the list of all buckets", "<ListAllMyBucketsResult><Owner/></ListAllMyBucketsResult>"],
    ["elements in a namespace", '<s3:ListBucketResult xmlns:s3="x">'],
  ])("%s", (_, text) => expect(isS3(text)).toBe(true));

  test.each([
    ["a page", "<!DOCTYPE html><html><body></body></html>"],
    [
      "a page that is XML",
      `${HEAD}<html xmlns="http://www.w3.org/1999/xhtml"><Error><Code>NoSuchKey</Code></Error></html>`,
    ],
    ["JSON", '{"Error":{"Code":"AccessDenied"}}'],
    ["plain text", "ok"],
    ["an error without a code", "<Error><Message>no</Message></Error>"],
    ["an error with a number", "<Error><Code>404</Code></Error>"],
    ["an error of another kind", "<error><code>NotFound</code></error>"],
    ["another element with a code", "<Errors><Code>NoSuchKey</Code></Errors>"],
    [
      "the error of another AWS service",
      "<ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>",
    ],
    ["a long name without an end", `<${"x".repeat(200)}`],
  ])("not %s", (_, text) => expect(isS3(text)).toBe(false));

  test.each([LIST, REFUSAL])("a beginning tells nothing yet: %#", (text) => {
    const verdicts = Array.from(text, (_, i) => isS3(text.slice(0, i)));
    expect(new Set(verdicts)).toEqual(new Set([undefined, true]));
    expect(verdicts.lastIndexOf(undefined)).toBeLessThan(verdicts.indexOf(true));
  });

  test("nothing that a stranger's server says gets into the words but its status and its type", () => {
    expect(described({ status: 200, type: "text/html; charset=utf-8", text: "x" })).toBe(
      "status 200 and text/html",
    );
    expect(described({ status: 200, type: "a\nb", text: "x" })).toBe(
      "status 200 and a body of no named type",
    );
    expect(described({ status: 204, type: undefined, text: "" })).toBe("status 204 and an empty body");
  });
});

describe("where the store is", () => {
  const asked = (s3: string, endpoint?: string, env: Record<string, string> = {}) => {
    const store = storeAddress({ s3, endpoint }, env);
    return store === "named" ? store : store.ask?.href;
  };
  test.each<[string, string | undefined, string]>([
    ["s3://b/x.db", "http://127.0.0.1:9000", "http://127.0.0.1:9000/b?list-type=2&max-keys=0"],
    ["s3://b/x.db", "https://host/store/", "https://host/store/b?list-type=2&max-keys=0"],
    ["s3://b.localhost:9000/x.db", undefined, "http://localhost:9000/b?list-type=2&max-keys=0"],
    ["s3://b.localhost:1/x.db", "http://[::1]:9000", "http://[::1]:9000/b?list-type=2&max-keys=0"],
    ["s3://b/x.db", undefined, "named"],
    ["s3://my.bucket/x.db", undefined, "named"],
    ["s3://b.s3.eu-central-1.amazonaws.com/x.db", undefined, "named"],
    ["s3://b.s3.us-west-004.backblazeb2.com/x.db", undefined, "named"],
  ])("%s at %s: %s", (s3, endpoint, expected) => expect(asked(s3, endpoint)).toBe(expected));

  test.each<[string, string, Record<string, string>]>([
    ["another host with a port", "s3://b.minio:9000/x.db", {}],
    ["an address in the URL", "s3://b/x.db?endpoint=minio:9000", {}],
    ["an address in the URL beside another", "s3://b.localhost:9000/x.db?endpoint=minio:9000", {}],
    ["no port, by which 0.5 takes it for a bucket of AWS", "s3://b.localhost/x.db", {}],
    ["an address in the environment", "s3://b/x.db", { AWS_ENDPOINT_URL_S3: "http://minio:9000" }],
    ["a proxy", "s3://b.localhost:9000/x.db", { https_proxy: "http://proxy:3128" }],
  ])("only litestream gets there: %s", (_, s3, env) => expect(asked(s3, undefined, env)).toBe(undefined));

  test("another bucket at the same place", () => {
    expect(withBucket("s3://b/b/x.db", "z")).toBe("s3://z/b/x.db");
    expect(withBucket("s3://b.localhost:9000/x.db", "z")).toBe("s3://z.localhost:9000/x.db");
    expect(withBucket("s3://b:9000/x.db?endpoint=b", "z")).toBe("s3://z:9000/x.db?endpoint=b");
  });
});

// As the binaries print it, of versitygw and of servers that are no stores.
describe("what litestream says of a refusal", () => {
  const v2 = (status: number, rest: string) =>
    `operation error S3: ListObjectsV2, https response error StatusCode: ${status}, RequestID: A, HostID: B/c=, ${rest}`;
  test.each([
    ["0.3.9", "s3: cannot determine generations: NoSuchBucket: The specified bucket does not exist."],
    [
      "0.3.13",
      'time=2026-12-01T02:49:01.467Z level=ERROR msg="cannot determine generations" db=/x.db replica=s3 error="NoSuchBucket: The specified bucket does not exist.\\n\\tstatus code: 404, request id: A, host id: B"',
    ],
    [
      "0.5.10",
      `time=2026-12-01T02:49:01.653Z level=ERROR msg="failed to run" error="${v2(404, "NoSuchBucket: The specified bucket does not exist.")}"`,
    ],
    ["0.5.17", `Error: ${v2(404, "NoSuchBucket: The specified bucket does not exist.")}`],
    [
      "0.5.17",
      `Error: ${v2(403, "api error SignatureDoesNotMatch: The request signature we calculated does not match.")}`,
    ],
  ])("%s: it is a store's: %s", (_, line) => expect(refusesAsS3(line)).toBe(true));

  test.each([
    ["a status alone", `Error: ${v2(404, "api error NotFound: Not Found")}`],
    ["a status alone", "s3: cannot determine generations: Forbidden: Forbidden"],
    ["a status alone", `Error: ${v2(308, "api error PermanentRedirect: Permanent Redirect")}`],
    [
      "a page that it can't read",
      'level=ERROR msg="x" error="SerializationError: failed to unmarshal error message\\ncaused by: UnmarshalError: 00000000  41 |AccessDenied: no|"',
    ],
  ])("%s is nobody's: %s", (_, line) => expect(refusesAsS3(line)).toBe(false));
});
