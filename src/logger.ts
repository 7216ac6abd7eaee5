import pino from "pino";

/** What this library calls on a logger; every pino logger has it, Fastify's `app.log` too. */
export type Logger = Pick<pino.BaseLogger, "debug" | "info" | "warn" | "error">;

const REDACTED = "[redacted]";
const defaults = new Map<string, Logger>();

/**
 * The logger used when the caller gives none: pino on stderr, since stdout belongs to the app.
 * @param level `LOG_LEVEL`; default `info`, also where the word is none of pino's levels.
 */
export function defaultLogger(level: string | undefined): Logger {
  const wanted = level?.toLowerCase() ?? "";
  const known = wanted === "silent" || Object.hasOwn(pino.levels.values, wanted) ? wanted : "info";
  let logger = defaults.get(known);
  if (logger === undefined) {
    logger = pino(
      {
        name: "litestream-s3",
        level: known,
        redact: { paths: ["key", "token", "*.key", "*.token"], censor: REDACTED },
      },
      pino.destination({ fd: 2, sync: true }),
    );
    defaults.set(known, logger);
  }
  return logger;
}

/** Gives back the text without any of the secrets, also where they are URL- or base64-encoded. */
export type Redact = (text: string) => string;

export function redactor(secrets: readonly string[]): Redact {
  const forms = secrets.flatMap((secret) => [
    secret,
    encodeURIComponent(secret),
    Buffer.from(secret).toString("base64"),
    Buffer.from(secret).toString("base64url"),
  ]);
  // The longest first: one secret may be a part of another.
  const hidden = [...new Set(forms)].filter(Boolean).sort((a, b) => b.length - a.length);
  return (text) => hidden.reduce((rest, form) => rest.replaceAll(form, REDACTED), text);
}
