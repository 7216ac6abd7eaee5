// What is wrong with a replica's URL and a store's address, and which settings were meant. Text in, text out. What litestream
// takes comes from its source: ParseHost in s3/replica_client.go of 0.3.14 and 0.5.18.

/** Settings that would work in the place of others. */
interface Meant {
  readonly s3: string;
  readonly endpoint?: string;
  readonly region?: string | undefined;
}

/** Addresses of stores. With a bucket before them litestream takes them: 0.3, 0.5, or both. */
const TAKEN_WITH_BUCKET: readonly RegExp[] = [
  /^s3(?:\.(?<region>[^.]+))?\.amazonaws\.com$/,
  /^s3\.[^.]+\.backblazeb2\.com$/,
  /^s3\.filebase\.com$/,
  /^s3\.[^.]+\.scw\.cloud$/,
  /^[^.]+\.digitaloceanspaces\.com$/,
  /^[^.]+\.linodeobjects\.com$/,
];
/** These it never does: it would take all of the host for the bucket, and ask AWS for it. */
const NEVER_TAKEN: readonly RegExp[] = [
  /^s3[.-](?:dualstack\.)?(?<region>[a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com(?:\.cn)?$/,
  /^(?!(?:eu|fedramp)\.)[^.]+(?:\.(?:eu|fedramp))?\.r2\.cloudflarestorage\.com$/,
  /^s3(?:\.[^.]+)?\.wasabisys\.com$/,
  /^(?:fly\.storage\.tigris\.dev|t3\.storage\.dev|t3\.tigrisfiles\.io)$/,
  /^[^.]+\.your-objectstorage\.com$/,
  /^s3\.[^.]+\.(?:io\.|perf\.)?cloud\.ovh\.(?:net|us)$/,
  /^[^.]+\.vultrobjects\.com$/,
  /^[^.]+\.contabostorage\.com$/,
  /^sos-[^.]+\.exo\.io$/,
  /^storage\.googleapis\.com$/,
];
const AWS = /\.amazonaws\.com$/;

/** The store whose address a host is or ends in, and what is before it. */
function storeIn(
  host: string,
): { bucket: string; store: string; region?: string | undefined; taken: boolean } | undefined {
  const labels = host.split(".");
  // The longest address first, as `s3.eu-central-1` before `eu-central-1`.
  for (let from = 0; from < labels.length; from += 1) {
    const store = labels.slice(from).join(".");
    const bucket = labels.slice(0, from).join(".");
    const known = [...TAKEN_WITH_BUCKET, ...NEVER_TAKEN].find((pattern) => pattern.test(store));
    if (known === undefined) continue;
    const taken = bucket !== "" && TAKEN_WITH_BUCKET.includes(known);
    return { bucket, store, region: known.exec(store)?.groups?.region, taken };
  }
  return undefined;
}

interface Parts {
  readonly host: string;
  /** `:PORT`, or empty. */
  readonly port: string;
  readonly segments: readonly string[];
}

function partsOf(url: string): Parts | undefined {
  const [, host, port = "", path = ""] =
    /^s3:\/\/([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(\/[^?#]*)?(?:[?#]|$)/.exec(url) ?? [];
  return host === undefined ? undefined : { host, port, segments: path.split("/").filter(Boolean) };
}

const isIpAddress = (host: string) => host.startsWith("[") || /^\d{1,3}(?:\.\d{1,3}){3}$/.test(host);

/** Whether 0.5 takes the first part of such a host for the bucket; 0.3 knows no such hosts. */
const isBucketAndStore = ({ host, port }: Parts) =>
  port !== "" && host.includes(".") && !isIpAddress(host) && !host.includes(".com");

/**
 * The settings that were meant, if the URL has a store's address in the place of its bucket, so that no litestream can take
 * the URL. A bucket may have dots in its name: a host that could be one is left alone.
 */
export function meantByAddress(url: string): Meant | undefined {
  const parts = partsOf(url);
  if (parts === undefined) return undefined;
  const { host, port, segments } = parts;
  if (/^.+\.localhost$/.test(host)) return undefined;
  const known = storeIn(host);
  if (known !== undefined) {
    const { bucket, store, region, taken } = known;
    if (taken) return undefined;
    const s3 = urlOf(bucket === "" ? segments : [bucket, ...segments]);
    return AWS.test(store) ? { s3, region } : { s3, endpoint: `https://${store}${port}` };
  }
  const isAlone = host === "localhost" || isIpAddress(host) || (port !== "" && !host.includes("."));
  // No bucket has a name of two letters, and with a port no litestream takes a `.com` host apart.
  const isStore = port !== "" && (host.startsWith("s3.") || host.includes(".com"));
  if (!isAlone && !isStore) return undefined;
  const scheme = port === "" || port === ":443" || port === ":8443" ? "https" : "http";
  return { s3: urlOf(segments), endpoint: `${scheme}://${host}${port}` };
}

const urlOf = ([bucket = "BUCKET", ...path]: readonly string[]) =>
  `s3://${bucket}/${path.join("/") || "PATH"}`;

/** What litestream takes for the bucket. */
function bucketOf(url: string): string | undefined {
  const parts = partsOf(url);
  if (parts === undefined) return undefined;
  const { host } = parts;
  const [, local] = /^(.+)\.localhost$/.exec(host) ?? [];
  if (local !== undefined) return local;
  const known = storeIn(host);
  if (known?.taken) return known.bucket;
  return isBucketAndStore(parts) ? host.slice(0, host.indexOf(".")) : host;
}

/** The address that was meant, if the address also names the URL's bucket, at its end or before a store's host. */
export function meantByEndpoint(endpoint: string, url: string): string | undefined {
  const bucket = bucketOf(url);
  if (bucket === undefined) return undefined;
  const { protocol, host, hostname, pathname } = new URL(endpoint);
  const path = pathname.replace(/\/+$/, "");
  const ending = [`/${bucket}`, `/${[bucket, ...(partsOf(url)?.segments ?? [])].join("/")}`].find((end) =>
    path.endsWith(end),
  );
  if (ending !== undefined) return `${protocol}//${host}${path.slice(0, -ending.length)}`;
  const rest = hostname.startsWith(`${bucket}.`) ? hostname.slice(bucket.length + 1) : "";
  const isStore = /^s3[.-]/.test(rest) || storeIn(rest)?.bucket === "";
  return isStore ? `${protocol}//${host.slice(bucket.length + 1)}${path}` : undefined;
}

/** What could be meant where the store knows no such bucket, or refuses the key: more than a guess nobody can say. */
export function doubtsOf(url: string, endpoint: string | undefined): string[] {
  const parts = partsOf(url);
  const bucket = bucketOf(url);
  if (parts === undefined || bucket === undefined) return [];
  const { host, port } = parts;
  if (endpoint === undefined) {
    if (isBucketAndStore(parts) && !host.endsWith(".localhost"))
      return [
        `From the host in REPLICA_URL, litestream 0.5 takes ${bucket} for the bucket and ${host.slice(bucket.length + 1)}${port} for the store, and 0.3 all of it for a bucket of AWS: the store's address belongs into REPLICA_ENDPOINT.`,
      ];
    return /^(?:s3|minio|storage|objects?)[.-].*\./.test(bucket)
      ? [
          `If ${bucket} in REPLICA_URL is no bucket, but the store's address, it belongs into REPLICA_ENDPOINT.`,
        ]
      : [];
  }
  return new URL(endpoint).hostname.startsWith(`${bucket}.`)
    ? [
        "REPLICA_ENDPOINT begins with the bucket's name: if that is not a part of the store's own name, leave it out.",
      ]
    : [];
}

/** litestream 0.5 takes these from the URL, 0.3 ignores them there, and both from their configuration. */
const TAKEN_PARAMETERS = ["endpoint", "region"] as const;

/** `endpoint` and `region` from the URL's parameters, as 0.5 takes them, and the URL without them. */
export function parametersOf(url: string): Meant {
  const [, place = url, query] = /^([^?]*)\?(.*)$/s.exec(url) ?? [];
  if (query === undefined) return { s3: url };
  const parameters = new URLSearchParams(query);
  // Requests to an `endpoint` of the configuration are in path style: what asks for the other style stays as it is.
  const style = parameters.get("forcePathStyle") || parameters.get("force-path-style") || "true";
  if (!/^(?:true|1|t|yes)$/i.test(style)) return { s3: url };
  const [endpoint, region] = TAKEN_PARAMETERS.map((name) => parameters.get(name) || undefined);
  const isTaken = (pair: string) =>
    (TAKEN_PARAMETERS as readonly string[]).includes([...new URLSearchParams(pair).keys()][0] ?? "");
  const rest = query
    .split("&")
    .filter((pair) => !isTaken(pair))
    .join("&");
  return {
    s3: rest === "" ? place : `${place}?${rest}`,
    ...(endpoint === undefined ? {} : { endpoint: withScheme(endpoint) }),
    ...(region === undefined ? {} : { region }),
  };
}

/** 0.5's IsLocalEndpoint. */
const LOCAL =
  /^(?:localhost|127\.0\.0\.1|192\.168\..*|10\..*|172\.(?:1[6-9]\.|2|3[01]\.).*|.*\.local(?:host)?)(?::\d+)?(?:\/|$)/i;

const withScheme = (endpoint: string) =>
  /^\w+:\/\//.test(endpoint) ? endpoint : `${LOCAL.test(endpoint) ? "http" : "https"}://${endpoint}`;
