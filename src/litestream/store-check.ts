import { randomBytes } from "node:crypto";
import { ADVICE, messageOf } from "../errors.ts";
import type { Job } from "./binary.ts";
import { startLitestream } from "./configuration.ts";
import { complaintOf, type Dialect, refusesAsS3, storeAddress, withBucket } from "./dialect.ts";
import type { Failed } from "./download.ts";
import { withLimit } from "./limit.ts";
import { type Answer, described, ENOUGH, isS3 } from "./store-answer.ts";

// "The replica holds no backup" begins an empty database, and publishes one. Only a store can say that, and anything that
// answers 200 looks like an empty one to litestream.

/** How long each of the two questions may take; the call's own deadline may come first. */
const ASK_SECONDS = 5;
const CONTROL_SECONDS = 15;

/** Why "no backup" is not believed. */
export interface Doubt {
  readonly words: string;
  /** Whether another try may mend it: nothing has answered, or a server that is not well. */
  readonly passes: boolean;
}

/** What a restore came to, except that "no backup" is a failure where the store has not shown that it is one. */
export async function believed<T extends Failed | { readonly size: number | undefined }>(
  job: Job,
  dialect: Dialect,
  got: T,
  signal: AbortSignal,
): Promise<T | Failed> {
  // With an advice of its own it is a moment before the first backup, which the list has shown.
  const isNone =
    "reason" in got ? got.reason === "no-backup" && got.advice === undefined : got.size === undefined;
  if (isNone && dialect.deaf !== undefined)
    return { reason: "failed", words: dialect.deaf, advice: ADVICE.credentials, passes: false };
  const doubt = isNone ? await doubtOf(job, dialect, signal) : undefined;
  return doubt === undefined ? got : { reason: "unreachable", advice: ADVICE.unreachable, ...doubt };
}

/**
 * Why an empty list is not to be believed; `undefined` where a store has given it. Asks for the bucket without a signature;
 * where that does not tell, has litestream ask for one that can't exist. Nothing is remembered: what stands at an
 * address changes.
 */
export async function doubtOf(job: Job, dialect: Dialect, signal: AbortSignal): Promise<Doubt | undefined> {
  const store = storeAddress(job, job.env);
  if (store === "named") return undefined;
  const answer = await ask(store.ask, signal);
  if (typeof answer === "object" && isS3(answer.text)) return undefined;
  const control = await controlled(job, dialect, signal);
  if (control === "refused") return undefined;
  if (typeof answer === "object") {
    const words = `what answers at ${store.shown} is no S3 store: asked for the bucket, it gave ${described(answer)}, and nothing that only S3 says`;
    return { words, passes: answer.status >= 500 || answer.status === 429 };
  }
  if (control === "empty") {
    const words = `what answers at ${store.shown} is no S3 store: even of a bucket that can't exist it shows an empty list`;
    return { words, passes: false };
  }
  const tried = [answer, control && `litestream: ${control}`].filter(Boolean).join("; ");
  const words = `litestream saw an empty list, but what answers at ${store.shown} has not shown that it is an S3 store`;
  return { words: tried === "" ? words : `${words} (${tried})`, passes: true };
}

/** The answer; in words why there is none; `undefined` where this process may not reach what litestream does. */
async function ask(url: URL | undefined, caller: AbortSignal): Promise<Answer | string | undefined> {
  if (url === undefined) return undefined;
  // Loaded here, which no app waits for that finds its backup.
  const { get } = await (url.protocol === "https:" ? import("node:https") : import("node:http"));
  return await withLimit(
    ASK_SECONDS,
    caller,
    (signal) =>
      new Promise((done) => {
        // Not `fetch`: frameworks replace that one, and cache its answers. No redirect is followed, no connection kept.
        const request = get(url, { agent: false, signal }, (response) => {
          const { statusCode: status = 0, headers } = response;
          let text = "";
          const end = () => {
            done({ status, type: headers["content-type"], text });
            request.destroy();
          };
          response.setEncoding("utf8").on("data", (chunk: string) => {
            text += chunk;
            if (text.length >= ENOUGH || isS3(text) !== undefined) end();
          });
          // Cut off by the time or the store: what has come is what it said.
          response.once("end", end).once("error", end);
        });
        request.on("error", (error) => {
          // Of several addresses, Node has no message.
          done(
            signal.aborted
              ? "no answer in time"
              : messageOf(error) || `${(error as NodeJS.ErrnoException).code}`,
          );
        });
      }),
  );
}

/** litestream's way to the store may be another: a proxy, certificates of its own. */
async function controlled(
  job: Job,
  { moment }: Dialect,
  caller: AbortSignal,
): Promise<"refused" | "empty" | string> {
  const other = { ...job, s3: withBucket(job.s3, `litestream-s3-${randomBytes(6).toString("hex")}`) };
  const { exitCode, stdout, stderr, lines } = await withLimit(CONTROL_SECONDS, caller, (signal) => {
    return startLitestream(other, moment.args(job.dbpath), { signal, capture: ENOUGH }).ended;
  });
  if (lines.some(refusesAsS3)) return "refused";
  if (exitCode === 0 && moment.of(stdout, stderr, new Date()) !== undefined) return "empty";
  return complaintOf(lines, [other.dbpath, other.s3]).words;
}
