import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { resolve } from "node:path";

/** What a shell would replace, and nobody does here. Further on, `~` and `$` are a part of a name. */
const SHELL = /^~(?=\/|$)|^\$[A-Za-z_]\w*(?=\/|$)|\$\{[A-Za-z_]\w*\}/;

export const isUnexpanded = (path: string) => SHELL.test(path);

export const UNEXPANDED = "must be written out: nothing is put into the place of ~ or of a $NAME here";

/** The absolute path that was meant, as the end of a message; `undefined` where another variable than HOME is in it. */
export function meantByShell(path: string): string | undefined {
  try {
    const expanded = path.replace(/^~(?=\/|$)|^\$HOME(?=\/|$)|\$\{HOME\}/g, () => homedir());
    if (isUnexpanded(expanded)) return undefined;
    const before = existsSync(path) ? `; what is in ${resolve(path)} from before has to be moved there` : "";
    return `, as ${resolve(expanded)}${before}`;
  } catch {
    return undefined; // no home, or no working directory
  }
}
