import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IS_0_3, LITESTREAM } from "./litestream.ts";
import { tempFolder } from "./setup.ts";

/**
 * A shell script that is the litestream under test, except that its `replicate`, or another command, does what the test
 * says: for states that a real one can't be brought into.
 */
export function fakeLitestream(script: string, command = "replicate"): string {
  const file = join(tempFolder(), "litestream");
  const text = `#!/bin/sh
case "$*" in
  "${command} -h") exec ${LITESTREAM} "$@" ;;
  "${command}"*) ${script} ;;
  *) exec ${LITESTREAM} "$@" ;;
esac
`;
  writeFileSync(file, text);
  chmodSync(file, 0o755);
  return file;
}

/**
 * For `fakeLitestream`: the real thing, and a command between its end and its exit code. A shell takes the stdin away from
 * what runs in its background; a disk on which a nameless file is open can't become read-only.
 */
export function afterLitestream(command: string): string {
  return IS_0_3
    ? `exec 3<&0; trap 'kill -INT $!' INT; ${LITESTREAM} "$@" <&3 & wait $!; wait $!; code=$?; exec 3<&- </dev/null; ${command}; exit $code`
    : `${LITESTREAM} "$@"; code=$?; exec </dev/null; ${command}; exit $code`;
}
