import { KEY, TOKEN } from "./s3.ts";

const FORMS = Object.entries({ "access key": KEY, secret: TOKEN }).flatMap(([name, secret]) =>
  [
    secret,
    encodeURIComponent(secret),
    ...(["base64", "base64url", "hex"] as const).map((encoding) => Buffer.from(secret).toString(encoding)),
  ].map((form) => [name, form] as const),
);

/** Which of the two is in the text, plain or encoded. */
export function secretIn(text: string): string | undefined {
  return FORMS.find(([, form]) => text.includes(form))?.[0];
}
