import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const isRoot = process.getuid?.() === 0;

/** Why no small disk can be made here; `undefined` where one can. */
export const NO_SMALL_DISK: string | undefined = (() => {
  if (!isRoot || process.platform !== "linux") return "a small disk is a tmpfs: it takes root on Linux";
  const { status } = spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
  return status === 0 ? undefined : "this machine mounts no tmpfs";
})();

/** Makes the folder a file system of its own, of so many KiB. */
export function mountSmallDisk(folder: string, kib: number): void {
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${kib}k`, "none", folder], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
}

export function unmountDisk(folder: string): void {
  spawnSync("umount", ["-l", folder]);
}

/**
 * Makes such a folder read-only, for root too, or writable again.
 * @returns false where something still writes to it
 */
export function remountDisk(folder: string, as: "ro" | "rw"): boolean {
  return spawnSync("mount", ["-o", `remount,${as}`, folder]).status === 0;
}

/** Fills the disk to its last byte; gives it back when it is called. */
export function fillDisk(folder: string): () => void {
  const file = join(folder, "filler");
  for (let size = 1 << 24; size >= 1; size >>= 1) {
    try {
      writeFileSync(file, Buffer.alloc(size), { flag: "a" });
    } catch {
      // as much as there was room for
    }
  }
  return () => rmSync(file);
}
