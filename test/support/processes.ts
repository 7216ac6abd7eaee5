import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

/** The id of a process that has ended. */
export function deadPid(): number {
  return spawnSync(process.execPath, ["-e", ""]).pid;
}

/** The processes that have the text in their arguments or in the name of the file that is their stdin, except this one. */
export function processesWith(text: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        const stdin = readlinkSync(`/proc/${pid}/fd/0`);
        return line.includes(text) || stdin.includes(text) ? [`${basename(pid)} ${line} <${stdin}`] : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
}
