import { readFileSync } from "node:fs";
import { parse } from "dotenv";
import { ConfigError, messageOf } from "./errors.ts";

/** What an env file says. */
export interface EnvFile {
  readonly values: Readonly<Record<string, string | undefined>>;
  /** The names whose value ends at a `#` right behind it, without quotes: dotenv begins a comment there. */
  readonly cut: ReadonlySet<string>;
}

/**
 * Reads the env file without touching `process.env`.
 * @param file `undefined`: `.env` in the working directory, which may be missing. `false`: none.
 * @throws ConfigError when a named file, or one that is there, can't be read, or is UTF-16.
 */
export function readEnvFile(file: string | false | undefined): EnvFile {
  if (file === false) return { values: {}, cut: new Set() };
  const bytes = bytesOf(file);
  if (isUtf16(bytes)) {
    const problem = `${file ?? ".env"} is UTF-16, as PowerShell's > writes it: save it as UTF-8 (in PowerShell: Set-Content -Encoding utf8)`;
    throw new ConfigError([{ name: "envFile", problem }]);
  }
  const text = bytes.toString().replace(/^\ufeff/, "");
  return { values: parse(text), cut: cutIn(text) };
}

function bytesOf(file: string | undefined): Buffer {
  try {
    return readFileSync(file ?? ".env");
  } catch (error) {
    if (file === undefined && (error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
    throw new ConfigError([{ name: "envFile", problem: `can't be read: ${messageOf(error)}` }], {
      cause: error,
    });
  }
}

/** By the mark at the beginning, or since every other byte of plain letters is 0 in UTF-16. */
function isUtf16(bytes: Buffer): boolean {
  if (/^(?:fffe|feff)/.test(bytes.toString("hex", 0, 2))) return true;
  const zeros = (first: number) => bytes.filter((byte, at) => byte === 0 && at % 2 === first).length;
  const [even, odd] = [zeros(0), zeros(1)];
  return Math.max(even, odd) > bytes.length / 4 && Math.min(even, odd) === 0;
}

/** dotenv's own pattern of a line (18.0, `lib/main.js`), with the space behind the value and the comment in groups. */
const LINE =
  /^\s*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?(\s*)(#.*)?$/gm;

function cutIn(text: string): Set<string> {
  const cut = new Set<string>();
  for (const [, name = "", value = "", space, comment] of text.replace(/\r\n?/g, "\n").matchAll(LINE)) {
    const isQuoted = /^\s*(['"`]).*\1$/s.test(value);
    // The last line of a name counts.
    if (comment !== undefined && space === "" && !isQuoted && !/\s$/.test(value)) cut.add(name);
    else cut.delete(name);
  }
  return cut;
}

const SUSPICIOUS: readonly [RegExp, string][] = [
  [/\ufffd/, "has a \ufffd in it, in the place of a lost character"],
  [
    /[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]/,
    "has an invisible (zero-width) character in it",
  ],
  [/[\u2018-\u201f\u2032\u2033\u00ab\u00bb\u2039\u203a]/, "has a typographic quote in it"],
  [/^[\s\u00a0]|[\s\u00a0]$/, "begins or ends with a space"],
];

/** What a value has that nobody types on purpose, in words without the value. */
export function suspicionsOf(value: string): string[] {
  return SUSPICIOUS.filter(([pattern]) => pattern.test(value)).map(([, words]) => words);
}
