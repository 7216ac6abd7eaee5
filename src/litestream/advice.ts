import { ADVICE } from "../errors.ts";
import type { Job } from "./binary.ts";

/** Go takes each of them in either case, the former ones for http:// and the latter ones for https://. */
const PROXIES = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];

/**
 * What to do about a failure, as the end of a message.
 * @param job its environment is not shown: a proxy's address may hold a password
 * @param advice in place of what goes with the reason
 */
export function adviceOn(
  reason: keyof typeof ADVICE,
  { env, hints = [] }: Pick<Job, "env" | "hints">,
  advice: string = ADVICE[reason],
): string {
  const more: string[] = [];
  if (reason === "credentials" || reason === "bucket") more.push(...hints);
  // Temporary credentials of AWS. The session token that belongs to them is not passed on.
  if (reason === "credentials" && env.AWS_ACCESS_KEY_ID?.startsWith("ASIA")) {
    more.push(
      "A key that begins with ASIA is a temporary one and needs a session token, which can't be given here: use a permanent key.",
    );
  }
  const proxies = PROXIES.filter((name) => env[name]);
  if ((reason === "timeout" || reason === "unreachable") && proxies.length > 0) {
    more.push(
      `litestream goes through the proxy in ${proxies.join(" and ")}: check that too, or except the store in NO_PROXY.`,
    );
  }
  return [advice, ...more].join(" ");
}
