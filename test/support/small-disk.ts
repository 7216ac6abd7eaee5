import { spawnSync } from "node:child_process";
import { onTestFinished } from "vitest";
import { tempFolder } from "./setup.ts";

const isRoot = process.getuid?.() === 0;

/** Why no small disk can be made here; `undefined` where one can. */
export const NO_SMALL_DISK: string | undefined = (() => {
  if (!isRoot || process.platform !== "linux") return "a small disk is a tmpfs: it takes root on Linux";
  const { status } = spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
  return status === 0 ? undefined : "this machine mounts no tmpfs";
})();

/** A folder on a file system of its own, of so many KiB; it goes with the test. */
export function smallDisk(kib: number): string {
  const folder = tempFolder();
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${kib}k`, "none", folder], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  onTestFinished(() => void spawnSync("umount", ["-l", folder]));
  return folder;
}

/** Makes such a folder read-only, for root too. */
export function makeReadOnly(folder: string): void {
  const { status, stderr } = spawnSync("mount", ["-o", "remount,ro", folder], { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}
