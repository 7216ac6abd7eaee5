import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What happens to a request instead of its answer. */
export type Fault =
  /** An S3 error with this status; `code`: another one than goes with that. */
  | { status: 403 | 404 | 500 | 503; code?: string }
  /** There is no such object. */
  | "gone"
  /** What is uploaded is said to be stored, and is not; the rest goes through. */
  | "pretend"
  /** The connection is cut at once. */
  | "reset"
  /** Nothing comes, ever. */
  | "stall"
  /** The head and half of the body come, then nothing. */
  | "stall-body"
  /** The store does what it was asked to; its answer is lost. */
  | "drop-response"
  /** The request reaches the store so much later. */
  | { delayMs: number }
  /** So many bytes of the answer at a time, then a pause. */
  | { slow: { bytes: number; everyMs: number } }
  /** It goes through, but not before then. */
  | { after: Promise<unknown> };

const CODES = { 403: "AccessDenied", 404: "NoSuchBucket", 500: "InternalError", 503: "SlowDown" } as const;

export interface FaultProxy {
  readonly port: number;
  /** Decides what happens to a request; `undefined`: it goes through. */
  fault: (request: IncomingMessage) => Fault | undefined;
  /** Every request so far, as `METHOD /path?query`. */
  readonly requests: string[];
  /** Resolves with the next request that matches. */
  nextRequest(matches: (request: string) => boolean): Promise<string>;
  stop(): Promise<void>;
}

/**
 * Stands between litestream and the store, and passes everything on as it is (the signature covers the Host header).
 * With `plainParts`, the list of parts that ends a multipart upload is put in the one form that fauxqs 1.9.2 reads. Go
 * escapes a quote as `&#34;` and puts a part's number and ETag in any order: fauxqs refuses the one, and silently drops
 * parts for the other.
 */
export async function startFaultProxy(target: number, { plainParts = false } = {}): Promise<FaultProxy> {
  const waiting = new Set<{ matches: (request: string) => boolean; found: (request: string) => void }>();
  const proxy = {
    fault: (_: IncomingMessage): Fault | undefined => undefined,
    requests: [] as string[],
    nextRequest: (matches: (request: string) => boolean) =>
      new Promise<string>((found) => waiting.add({ matches, found })),
  };
  const server = createServer((incoming, outgoing) => {
    const line = `${incoming.method} ${incoming.url}`;
    proxy.requests.push(line);
    for (const waiter of waiting) {
      if (!waiter.matches(line)) continue;
      waiting.delete(waiter);
      waiter.found(line);
    }
    const fault = proxy.fault(incoming);
    if (fault === "gone") refuse(incoming, outgoing, 404, "NoSuchKey");
    else if (fault === "stall") incoming.resume();
    else if (fault === "pretend" && (incoming.method === "PUT" || /[?&]upload/.test(line)))
      void pretend(incoming, outgoing);
    else if (fault === "reset") incoming.socket.destroy();
    else if (typeof fault === "object" && "status" in fault)
      refuse(incoming, outgoing, fault.status, fault.code);
    else if (typeof fault === "object" && ("after" in fault || "delayMs" in fault)) {
      const held = "after" in fault ? fault.after : new Promise((done) => setTimeout(done, fault.delayMs));
      // A client that is gone takes its request with it: late uploads of a killed litestream are a thing of their own.
      void held.then(() => incoming.socket.destroyed || forward(target, incoming, outgoing, undefined));
    } else if (plainParts && isCompletion(line)) void completeWithPlainParts(target, incoming, outgoing);
    else forward(target, incoming, outgoing, fault === "pretend" ? undefined : fault);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return Object.assign(proxy, {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  });
}

function refuse(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  status: keyof typeof CODES,
  code: string = CODES[status],
): void {
  incoming.resume();
  incoming.once("end", () => {
    const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>a fault of the test</Message></Error>`;
    outgoing.writeHead(status, { "content-type": "application/xml" });
    outgoing.end(incoming.method === "HEAD" ? undefined : body);
  });
}

/** Says of any upload, also of one in parts, that it has come in. */
async function pretend(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const etag = '"d41d8cd98f00b204e9800998ecf8427e"';
  await incoming.resume().toArray();
  outgoing.writeHead(200, { etag, "content-type": "application/xml" });
  if (incoming.method !== "POST") return void outgoing.end();
  const [name, content] = /[?&]uploadId=/.test(incoming.url ?? "")
    ? ["CompleteMultipartUploadResult", `<ETag>${etag.replaceAll('"', "&quot;")}</ETag>`]
    : ["InitiateMultipartUploadResult", "<UploadId>none</UploadId>"];
  outgoing.end(`<?xml version="1.0" encoding="UTF-8"?><${name}>${content}</${name}>`);
}

const isCompletion = (line: string) => /^POST .*[?&]uploadId=/.test(line);

async function completeWithPlainParts(target: number, incoming: IncomingMessage, outgoing: ServerResponse) {
  const body = Buffer.concat(await incoming.toArray())
    .toString()
    .replaceAll("&#34;", "&quot;")
    .replaceAll(/(<ETag>[^<]*<\/ETag>)(<PartNumber>\d+<\/PartNumber>)/g, "$2$1");
  const { url, headers } = incoming;
  const options = { host: "127.0.0.1", port: target, method: "POST", path: url };
  const upstream = request(
    { ...options, headers: { ...headers, "content-length": Buffer.byteLength(body) } },
    (response) => {
      outgoing.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(outgoing);
    },
  );
  upstream.once("error", () => outgoing.destroy());
  upstream.end(body);
}

function forward(
  target: number,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  fault: "stall-body" | "drop-response" | { slow: { bytes: number; everyMs: number } } | undefined,
): void {
  const { method, url, headers } = incoming;
  const upstream = request(
    { host: "127.0.0.1", port: target, method, path: url, headers },
    async (response) => {
      if (fault === undefined) {
        outgoing.writeHead(response.statusCode ?? 502, response.headers);
        response.pipe(outgoing);
        return;
      }
      const body = Buffer.concat(await response.toArray());
      if (fault === "drop-response") return incoming.socket.destroy();
      outgoing.writeHead(response.statusCode ?? 502, response.headers);
      if (fault === "stall-body") {
        outgoing.write(body.subarray(0, Math.floor(body.length / 2)));
        return;
      }
      for (let at = 0; at < body.length && !outgoing.destroyed; at += fault.slow.bytes) {
        outgoing.write(body.subarray(at, at + fault.slow.bytes));
        await new Promise((done) => setTimeout(done, fault.slow.everyMs));
      }
      outgoing.end();
    },
  );
  upstream.once("error", () => outgoing.destroy());
  // The store sees it when litestream is killed in the middle of its upload.
  const onClose = () => incoming.complete || upstream.destroy();
  if (incoming.destroyed) onClose();
  else incoming.once("close", onClose);
  incoming.pipe(upstream);
}
