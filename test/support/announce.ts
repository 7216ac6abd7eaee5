import { LITESTREAM, VERSION } from "./litestream.ts";

/** Says in the log which real parts the tests run on. */
export default function announce(): void {
  const store = process.env.VERSITYGW_BIN ? "versitygw" : "fauxqs";
  console.log(`litestream ${VERSION} (${LITESTREAM}), S3 server ${store}`);
}
