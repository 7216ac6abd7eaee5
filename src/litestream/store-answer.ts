// What only an S3 store says. A web app, a console or a proxy answers a request for a bucket too, often with 200, and to
// litestream anything that is no list of objects may be an empty one.

/** So much of an answer is read, in characters. */
export const ENOUGH = 65_536;

/** What a server has said to a request for a bucket without a signature. */
export interface Answer {
  readonly status: number;
  /** Its `content-type`; `undefined` where it named none. */
  readonly type: string | undefined;
  /** The beginning of its body. */
  readonly text: string;
}

/**
 * Whether the text is an S3 store's list or refusal (docs.aws.amazon.com/AmazonS3: ListObjectsV2, "Error responses");
 * `undefined` where more of it may tell. Headers don't count: a website in a bucket has S3's, and is no store.
 */
export function isS3(text: string): boolean | undefined {
  const rest = text.replace(/^\ufeff?\s*(?:<\?[^>]*>\s*)?/, "");
  const root = /^<(?:[\w.-]+:)?(\w+)[\s/>]/.exec(rest)?.[1];
  if (root === undefined) return /^(?:<[^<>]{0,99})?$/.test(rest) ? undefined : false;
  if (root === "ListBucketResult" || root === "ListAllMyBucketsResult") return true;
  if (root !== "Error") return false;
  if (/<(?:[\w.-]+:)?Code>\s*[A-Z][A-Za-z]+(?:\.[A-Za-z]+)*\s*<\//.test(rest)) return true;
  return /<\/(?:[\w.-]+:)?Error\s*>/.test(rest) ? false : undefined;
}

/** The answer in words, without anything that a stranger's server could put into a log. */
export function described({ status, type, text }: Answer): string {
  const kind = /^[\w.+-]{1,40}\/[\w.+-]{1,40}/.exec(type ?? "")?.[0];
  const body = text === "" ? "an empty body" : (kind ?? "a body of no named type");
  return `status ${status} and ${body}`;
}
