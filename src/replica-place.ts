import { posix } from "node:path";

// One place can be spelled in many ways. Two that are not the same must never look so: what is known of one says nothing of
// the other. So only what litestream itself takes for the same is (ParseReplicaURL and ParseHost in its source, the same in
// 0.3.9 – 0.3.14, and in 0.5.6 – 0.5.18).

/** Of the backup: litestream 0.3 and 0.5 don't see each other's. */
export type Format = "0.3" | "0.5";

/** Where a replica is, as it was spelled in the settings. */
interface Spelling {
  /** `s3://BUCKET/PATH` */
  readonly s3: string;
  /** `https://HOST` */
  readonly endpoint?: string | undefined;
}

/** One text for a replica, however its place is spelled: `FORMAT STORE s3://BUCKET/PATH`; the store of AWS is `aws`. */
export function placeOf({ s3, endpoint = "" }: Spelling, format: Format): string {
  try {
    const [, host = "", path = "", query = ""] = /^s3:\/\/([^/?]*)([^?]*)\??(.*)$/s.exec(s3) ?? [];
    const { bucket, store } = (format === "0.3" ? hostOf0_3 : hostOf0_5)(host);
    const asked = format === "0.5" ? endpointIn(query) : undefined;
    const key = posix
      .normalize(`/${decodeURIComponent(path)}`)
      .split("/")
      .filter(Boolean)
      .map(encodeURIComponent)
      .join("/");
    return `${format} ${storeOf(endpoint || asked || store)} s3://${bucket}/${key}`;
  } catch {
    return `${format} ${endpoint} ${s3}`; // neither was ever a place
  }
}

/** The place that a record of before this file names, by the settings as they were spelled. */
export function placeOfSpelling(replica: string): string {
  const [, format, endpoint, s3] = /^(0\.[35]) (\S*) (\S+)$/.exec(replica) ?? [];
  return format === undefined || s3 === undefined ? replica : placeOf({ s3, endpoint }, format as Format);
}

/** A bucket, and the store that the URL's host names with it; empty: AWS. */
type Host = { readonly bucket: string; readonly store: string };

/** Hosts of both; group 1 is the bucket. What comes after it is the store's. */
const PROVIDERS =
  /^(?:(.+)\.)?(s3\.[^.]+\.backblazeb2\.com|s3\.filebase\.com|[^.]+\.digitaloceanspaces\.com|s3\.[^.]+\.scw\.cloud)$/;

function hostOf0_3(hostAndPort: string): Host {
  const [, host = "", port = ""] = /^(.*?)(:\d+)?$/.exec(hostAndPort) ?? [];
  const [local, name] = /^(?:(.+)\.)?localhost$/.exec(host) ?? [];
  if (local !== undefined) return { bucket: name ?? "", store: `http://localhost${port}` };
  const [, bucket, store] =
    PROVIDERS.exec(host) ?? /^(?:(.+)\.)?([^.]+\.linodeobjects\.com)$/.exec(host) ?? [];
  return store === undefined
    ? { bucket: host, store: "" }
    : { bucket: bucket ?? "", store: `https://${store}${port}` };
}

function hostOf0_5(host: string): Host {
  if (host.includes(":") && !host.includes(".com")) {
    const [, bucket = "", store = host] = /^([^.]*)\.(.*)$/.exec(host) ?? [];
    return { bucket, store: `http://${store}` };
  }
  const [, ofAws] = /^(.+)\.s3(?:\.[^.]+)?\.amazonaws\.com$/.exec(host) ?? [];
  if (ofAws !== undefined) return { bucket: ofAws, store: "" };
  const [, bucket, store] = PROVIDERS.exec(host) ?? [];
  return store === undefined
    ? { bucket: host, store: "" }
    : { bucket: bucket ?? "", store: `https://${store}` };
}

const LOCAL =
  /^(?:localhost|127\.0\.0\.1|10\..*|192\.168\..*|172\.(?:1[6-9]|2\d|3[01])\..*|.*\.local|.*\.localhost)$/;

/** The store that 0.5 takes from the URL's parameters, where nothing else names one. */
function endpointIn(query: string): string | undefined {
  const endpoint = new URLSearchParams(query).get("endpoint") || undefined;
  if (endpoint === undefined || /^https?:\/\//.test(endpoint)) return endpoint;
  const { hostname } = new URL(`https://${endpoint}`);
  return `${LOCAL.test(hostname) ? "http" : "https"}://${endpoint}`;
}

/** AWS has each bucket's name once, whatever the region in the address; not so its partitions, which have their own. */
const AWS = /^s3(?:[.-](?:dualstack\.)?(?!us-gov-|us-iso)[a-z]{2}-[a-z]+-\d)?\.amazonaws\.com$/;
const LOOPBACK = new Set(["127.0.0.1", "[::1]"]);

/** Without what is the same to every client: upper case, the port that the protocol has anyway, a slash at the end. */
function storeOf(address: string): string {
  if (address === "") return "aws";
  const { protocol, hostname, port, pathname } = new URL(address);
  const path = pathname.replace(/\/+$/, "");
  if (AWS.test(hostname) && port === "" && path === "") return "aws";
  const host = LOOPBACK.has(hostname) ? "localhost" : hostname;
  return `${protocol}//${host}${port && `:${port}`}${path}`;
}
