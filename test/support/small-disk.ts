import { onTestFinished } from "vitest";
import { mountSmallDisk, remountDisk, unmountDisk } from "./disk.ts";
import { tempFolder } from "./setup.ts";

/** A folder on a file system of its own, of so many KiB; it goes with the test. */
export function smallDisk(kib: number): string {
  const folder = tempFolder();
  mountSmallDisk(folder, kib);
  onTestFinished(() => unmountDisk(folder));
  return folder;
}

/** Makes such a folder read-only, for root too. */
export function makeReadOnly(folder: string): void {
  if (!remountDisk(folder, "ro")) throw new Error(`${folder} can't be made read-only`);
}
