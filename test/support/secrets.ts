import { KEY, TOKEN } from "./s3.ts";

const SECRETS = { "access key": KEY, secret: TOKEN, "access key and secret": `${KEY}:${TOKEN}` };

const FORMS = Object.entries(SECRETS).flatMap(([name, secret]) =>
  [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(secret).replace(/%../g, (code) => code.toLowerCase()),
    ...(["base64", "base64url", "hex"] as const).map((encoding) => Buffer.from(secret).toString(encoding)),
  ].map((form) => [name, form] as const),
);

/** Which of them is in the text, plain or encoded. */
export function secretIn(text: string): string | undefined {
  return FORMS.find(([, form]) => text.includes(form))?.[0];
}
