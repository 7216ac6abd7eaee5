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
      // A full disk behind stderr must not end the app.
      pino.destination({ fd: 2, sync: true }).on("error", () => {}),
    );
    defaults.set(known, logger);
  }
  return logger;
}

/** The same logger, except that nothing it throws gets out: a row matters more than a line. */
export function unfailing(logger: Logger): Logger {
  const guarded = (level: keyof Logger) => (fields: object, message?: string) => {
    try {
      logger[level](fields, message);
    } catch {
      // There is nowhere to say it.
    }
  };
  return {
    debug: guarded("debug"),
    info: guarded("info"),
    warn: guarded("warn"),
    error: guarded("error"),
  } as Logger;
}

/**
 * Gives back the text without any of the secrets, also where they are URL- or base64-encoded. Where it is `cut`, its end
 * may be the beginning of one: then as much is taken off as a secret can have.
 */
export type Redact = (text: string, cut?: boolean) => string;

export function redactor(secrets: readonly string[]): Redact {
  const forms = [...secrets, secrets.join(":")].flatMap((secret) => {
    const url = encodeURIComponent(secret);
    const encoded = (["base64", "base64url", "hex", "latin1"] as const).map((encoding) =>
      Buffer.from(secret).toString(encoding),
    );
    const lower = url.replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase());
    return [secret, url, lower, url.replaceAll("%20", "+"), JSON.stringify(secret).slice(1, -1), ...encoded];
  });
  // The longest first: one secret may be a part of another.
  const hidden = [...new Set(forms)].filter(Boolean).sort((a, b) => b.length - a.length);
  const longest = hidden[0]?.length ?? 0;
  return (text, cut = false) => {
    const shown = hidden.reduce((rest, form) => rest.replaceAll(form, REDACTED), text);
    return cut ? shown.slice(0, Math.max(0, shown.length - longest)) : shown;
  };
}
