import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const page = (response: ServerResponse, type: string, text: string) => {
  response.writeHead(200, { "content-type": type });
  response.end(text);
};

/** What answers, and is no S3 store; each looks like an empty one to litestream. */
export const ANSWERS = {
  "an empty body": (_, response) => response.end(),
  // A proxy in front of a store of another kind: uploads succeed, and nothing is kept.
  "an empty body with an ETag": (_, response) => {
    response.writeHead(200, { etag: '"d41d8cd98f00b204e9800998ecf8427e"' });
    response.end();
  },
  "the index page of a console": (_, response) =>
    page(
      response,
      "text/html",
      "<!DOCTYPE html><html><head><title>Console</title></head><body></body></html>",
    ),
  // As a bucket that serves a website: the headers of S3, and every path the page of the app.
  "a website with the headers of S3": (_, response) => {
    response.setHeader("x-amz-request-id", "0123456789ABCDEF");
    page(response, "text/html", "<html><body>the app</body></html>");
  },
  "a JSON document": (_, response) => page(response, "application/json", '{"status":"ok"}'),
  "a way to a login page": (request, response) => {
    if (request.url === "/login")
      return page(response, "text/html", "<html><body>who are you?</body></html>");
    response.writeHead(302, { location: "/login" });
    response.end();
  },
} as const satisfies Record<string, (request: IncomingMessage, response: ServerResponse) => void>;

/** A server that gives the answer to every request. */
export async function startNoStore(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ port: number; requests: IncomingMessage[]; stop(): Promise<void> }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    request.resume();
    request.once("end", () => answer(request, response));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
