import { replicaUrl } from "../support/s3.ts";

/** How the address of a replica is spelled: all of them are the same place to litestream. */
export const SPELLINGS = [
  "plain",
  "slash",
  "double slash",
  "escaped",
  "endpoint",
  "upper case",
  "loopback",
] as const;
export type Spelling = (typeof SPELLINGS)[number];

const BUCKET = "backups";

/** The settings that name the place so. */
export function placeAs(spelling: Spelling, port: number, path: string): { s3: string; endpoint?: string } {
  const s3 = `s3://${BUCKET}/${path}`;
  switch (spelling) {
    case "plain":
      return { s3: replicaUrl(port, path) };
    case "slash":
      return { s3: `${replicaUrl(port, path)}/` };
    case "double slash":
      return { s3: replicaUrl(port, path.replace("/", "//")) };
    case "escaped":
      return { s3: replicaUrl(port, path.replace("l", "%6c")) };
    case "endpoint":
      return { s3, endpoint: `http://localhost:${port}/` };
    case "upper case":
      return { s3, endpoint: `http://LocalHost:${port}` };
    case "loopback":
      return { s3, endpoint: `http://127.0.0.1:${port}` };
  }
}
