import { describe, expect, test } from "vitest";
import { type Format, placeOf, placeOfSpelling } from "../../src/replica-place.ts";

type Spelling = [s3: string, endpoint?: string];
const both: Format[] = ["0.3", "0.5"];
const place = ([s3, endpoint]: Spelling, format: Format) => placeOf({ s3, endpoint }, format);

describe("one place in another spelling", () => {
  test.each<[string, Spelling, Spelling, Format[]?]>([
    ["a slash at the end", ["s3://b/a/x.db"], ["s3://b/a/x.db/"]],
    ["two slashes", ["s3://b/a/x.db"], ["s3://b//a///x.db"]],
    ["an escaped letter", ["s3://b/a/x.db"], ["s3://b/%61/x%2Edb"]],
    ["an escaped slash", ["s3://b/a/x.db"], ["s3://b/a%2fx.db"]],
    ["an escaped way up", ["s3://b/x.db"], ["s3://b/a/%2e%2e/x.db"]],
    ["a letter that has an escape only", ["s3://b/%C3%A4.db"], ["s3://b/ä.db"]],
    ["parameters that name no place", ["s3://b/x.db"], ["s3://b/x.db?region=eu-west-1&forcePathStyle=true"]],
    [
      "upper case in the host",
      ["s3://b/x.db", "https://minio.example"],
      ["s3://b/x.db", "https://MinIO.Example"],
    ],
    ["a slash behind the host", ["s3://b/x.db", "https://minio"], ["s3://b/x.db", "https://minio/"]],
    ["the default port", ["s3://b/x.db", "https://minio"], ["s3://b/x.db", "https://minio:443"]],
    ["the default port of http", ["s3://b/x.db", "http://minio"], ["s3://b/x.db", "http://minio:80/"]],
    [
      "loopback by number",
      ["s3://b/x.db", "http://localhost:9000"],
      ["s3://b/x.db", "http://127.0.0.1:9000"],
    ],
    ["loopback of IPv6", ["s3://b/x.db", "http://localhost:9000"], ["s3://b/x.db", "http://[::1]:9000"]],
    ["the store in the URL", ["s3://b/x.db", "http://127.0.0.1:9000"], ["s3://b.localhost:9000/x.db"]],
    [
      "the store in both",
      ["s3://b.localhost:9000/x.db", "http://127.0.0.1:9000"],
      ["s3://b.localhost:9000/x.db"],
    ],
    ["AWS by its address", ["s3://b/x.db"], ["s3://b/x.db", "https://s3.eu-central-1.amazonaws.com"]],
    ["AWS by its first address", ["s3://b/x.db", "https://s3.amazonaws.com"], ["s3://b/x.db"]],
    ["AWS in the URL", ["s3://b/x.db"], ["s3://b.s3.eu-central-1.amazonaws.com/x.db"], ["0.5"]],
    [
      "Backblaze in the URL",
      ["s3://b.s3.us-west-004.backblazeb2.com/x.db"],
      ["s3://b/x.db", "https://s3.us-west-004.backblazeb2.com"],
    ],
    [
      "DigitalOcean in the URL",
      ["s3://b.nyc3.digitaloceanspaces.com/x.db"],
      ["s3://b/x.db", "https://nyc3.digitaloceanspaces.com"],
    ],
    [
      "Scaleway in the URL",
      ["s3://b.s3.fr-par.scw.cloud/x.db"],
      ["s3://b/x.db", "https://s3.fr-par.scw.cloud"],
    ],
    [
      "Linode in the URL",
      ["s3://b.eu.linodeobjects.com/x.db"],
      ["s3://b/x.db", "https://eu.linodeobjects.com"],
      ["0.3"],
    ],
    ["upper case in the URL's host", ["s3://b.LOCALHOST:9000/x.db"], ["s3://b.localhost:9000/x.db"], ["0.5"]],
    ["any host in the URL", ["s3://b.minio:9000/x.db"], ["s3://b/x.db", "http://minio:9000"], ["0.5"]],
    [
      "the store as a parameter",
      ["s3://b/x.db?endpoint=localhost:9000"],
      ["s3://b.localhost:9000/x.db"],
      ["0.5"],
    ],
    [
      "a store as a parameter that does not count",
      ["s3://b/x.db?endpoint=https://other", "https://minio"],
      ["s3://b/x.db", "https://minio"],
    ],
  ])("%s", (_, one, other, formats = both) => {
    for (const format of formats) expect(place(one, format)).toBe(place(other, format));
  });
});

describe("another place", () => {
  test.each<[string, Spelling, Spelling, Format[]?]>([
    ["upper case in the path", ["s3://b/x.db"], ["s3://b/X.db"]],
    ["upper case in the bucket", ["s3://b/x.db"], ["s3://B/x.db"]],
    ["another bucket", ["s3://b/x.db"], ["s3://c/x.db"]],
    ["a longer path", ["s3://b/x.db"], ["s3://b/x.db/x.db"]],
    ["an escaped percent sign", ["s3://b/%2561.db"], ["s3://b/%61.db"]],
    ["an escaped question mark", ["s3://b/x%3Fa.db"], ["s3://b/x?a.db"]],
    ["a plus, which is no space", ["s3://b/a+b.db"], ["s3://b/a%20b.db"]],
    ["another port", ["s3://b.localhost:9000/x.db"], ["s3://b.localhost:9001/x.db"]],
    ["another protocol", ["s3://b/x.db", "http://minio"], ["s3://b/x.db", "https://minio"]],
    ["a path in the address", ["s3://b/x.db", "https://minio/s3"], ["s3://b/x.db", "https://minio"]],
    ["another host", ["s3://b/x.db", "https://minio"], ["s3://b/x.db", "https://minio2"]],
    ["a store, and AWS", ["s3://b/x.db", "https://minio"], ["s3://b/x.db"]],
    ["a partition of AWS", ["s3://b/x.db", "https://s3.us-gov-west-1.amazonaws.com"], ["s3://b/x.db"]],
    [
      "a host that 0.3 takes for a bucket",
      ["s3://b.LOCALHOST:9000/x.db"],
      ["s3://b.localhost:9000/x.db"],
      ["0.3"],
    ],
    [
      "AWS in the URL, which 0.3 takes for a bucket",
      ["s3://b/x.db"],
      ["s3://b.s3.eu-central-1.amazonaws.com/x.db"],
      ["0.3"],
    ],
    [
      "a dot in the bucket, where 0.5 ends it",
      ["s3://a.b.localhost:9000/x.db"],
      ["s3://a.b/x.db", "http://localhost:9000"],
      ["0.5"],
    ],
    [
      "a store as a parameter, which 0.5 takes",
      ["s3://b/x.db?endpoint=https://minio"],
      ["s3://b/x.db"],
      ["0.5"],
    ],
  ])("%s", (_, one, other, formats = both) => {
    for (const format of formats) expect(place(one, format)).not.toBe(place(other, format));
  });

  test("is that of a backup in another format", () => {
    expect(placeOf({ s3: "s3://b/x.db" }, "0.3")).not.toBe(placeOf({ s3: "s3://b/x.db" }, "0.5"));
  });
});

test("it is a text that people can read, and has no parameters", () => {
  expect(placeOf({ s3: "s3://b.localhost:9000//a/x.db/?region=x" }, "0.5")).toBe(
    "0.5 http://localhost:9000 s3://b/a/x.db",
  );
  expect(placeOf({ s3: "s3://b/x y.db" }, "0.3")).toBe("0.3 aws s3://b/x%20y.db");
});

test.each<[string, Spelling, Format]>([
  ["0.3  s3://b.localhost:9000/x.db", ["s3://b.localhost:9000/x.db"], "0.3"],
  ["0.5 http://127.0.0.1:9000/ s3://b/x.db", ["s3://b/x.db", "http://localhost:9000"], "0.5"],
])("a record of before there were places (%s) is one of the same place", (replica, spelling, format) => {
  expect(placeOfSpelling(replica)).toBe(place(spelling, format));
});
