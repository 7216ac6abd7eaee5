import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { nameless } from "../../src/database-files.ts";
import { startSupervised } from "../../src/litestream/child.ts";
import { redactor } from "../../src/logger.ts";
import { until } from "../support/continuous.ts";
import { tempFolder } from "../support/setup.ts";

const SECRET = "s3cret/s3cret";

/** Whether the process has ended; nobody may have asked for its exit code yet. */
function hasEnded(pid: string | undefined): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8") === "";
  } catch {
    return true;
  }
}

/** A shell that runs the script, and what it has said. */
function start(script: string, onLook = () => {}, onLine = (_: string) => {}) {
  const log = nameless(join(tempFolder(), "a.db"), "", "ax+");
  const stdin = openSync("/dev/null", "r");
  onTestFinished(() => closeSync(stdin));
  const lines: string[] = [];
  const shown: string[] = [];
  const child = startSupervised("/bin/sh", ["-c", script], {
    env: { PATH: process.env.PATH, TOKEN: SECRET },
    stdin,
    log,
    keep: undefined,
    redact: redactor([SECRET]),
    logger: { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() },
    onLook,
    onLine: (line, redacted) => {
      onLine(line);
      lines.push(line);
      shown.push(redacted);
    },
  });
  onTestFinished(() => child.end(0));
  return { child, log, lines, shown };
}

test("it says what both streams say, without secrets, also at its end, which comes when its descriptor 3 ends", async () => {
  const { child, lines, shown } = start('echo "a $TOKEN"; echo b >&2; read x <&3; echo c; exit 7');
  await until(() => lines.length === 2);
  await child.end(50_000);
  expect(lines).toEqual([`a ${SECRET}`, "b", "c"]);
  expect(shown).toEqual(["a [redacted]", "b", "c"]);
  expect(await child.ended).toEqual({ how: "exit code 7", startError: undefined });
});

test("a line was printed after the look but one before it", async () => {
  const file = join(tempFolder(), "said");
  writeFileSync(file, "0");
  let latest = 0;
  let before = 0;
  const pairs: [before: number, line: number][] = [];
  const script = `for i in $(seq 1 300); do echo $i; echo $i > "${file}"; sleep 0.005; done; read x <&3`;
  const look = () => {
    before = latest;
    latest = Number(readFileSync(file, "utf8"));
  };
  const { child } = start(script, look, (line) => pairs.push([before, Number(line)]));
  await until(() => pairs.length === 300);
  await child.end(50_000);
  expect(pairs.filter(([before, line]) => before >= line)).toEqual([]);
  expect(before).toBeGreaterThan(0);
});

test("one that does not end is killed, and what it has started with it", async () => {
  const { child, lines } = start("trap '' INT TERM; sleep 1000 & echo $!; while :; do sleep 1000; done");
  await until(() => lines.length === 1);
  await child.end(1);
  expect((await child.ended).how).toBe("SIGKILL");
  await until(() => hasEnded(lines[0]));
});

test("what it has started ends with it", async () => {
  const { child, lines } = start("sleep 1000 & echo $!");
  expect((await child.ended).how).toBe("exit code 0");
  await until(() => hasEnded(lines[0]));
});

test("its log is kept short", async () => {
  const { child, log, lines } = start(
    "i=0; while [ $i -lt 60 ]; do head -c 100000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); sleep 0.02; done; echo end; read x <&3",
  );
  await until(() => lines.at(-1) === "end");
  expect(fstatSync(log).size).toBeLessThan(3_000_000);
  await child.end(50_000);
});
