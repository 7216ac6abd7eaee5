/** What is wrong with a database's name that has to look like `^[a-z]{1,20}.*\.(sqlite|db)$`; `undefined`: nothing. */
export function problemOfName(name: string): string | undefined {
  const problems = [
    /^[a-z]/.test(name) ? undefined : "begin with a small letter, a to z",
    /\.(?:sqlite|db)$/.test(name) ? undefined : "end in .sqlite or .db",
    // The dot in the pattern stands for anything but the end of a line.
    /[\n\r\u2028\u2029]/.test(name) ? "have no line separator in it" : undefined,
  ].filter((problem) => problem !== undefined);
  return problems.length === 0 ? undefined : `must ${problems.join(", and ")}`;
}

/** Endings of SQLite's files in other frameworks and tools, and of SQLite's own files beside one. */
const ENDING = /\.(?:sqlite3?|s3db|sl3|(db3?))(?:-(?:wal|shm|journal))?$/i;

/** Without such an ending it may be a secret that was put here by mistake. */
export const isLikeName = (name: string) => ENDING.test(name);

const MOST = 50;

/** The name that is nearest to this one and passes. */
export function nameThatPasses(name: string): string {
  const found = ENDING.exec(name);
  const ending = found?.[1] === undefined ? ".sqlite" : ".db";
  const stem = name
    .slice(0, found?.index)
    // Without its accent, `ä` is a letter that passes.
    .normalize("NFD")
    .replace(/[\p{M}\n\r\u2028\u2029]/gu, "")
    .replace(/^[A-Z]/, (letter) => letter.toLowerCase());
  const begun = /^[a-z]/.test(stem) ? stem : `db${stem}`;
  return begun.slice(0, MOST - ending.length).replace(/[\ud800-\udbff]$/, "") + ending;
}
