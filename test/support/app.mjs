// An app in a process of its own: `node app.mjs CALL-AS-JSON` makes one call on the built library and prints what came
// of it as one JSON line; the log goes to stderr.
import { ConfigS3 } from "../../dist/index.js";

const { settings, litestream, method, args = [] } = JSON.parse(process.argv[2]);
const config = new ConfigS3(settings, { envFile: false, litestream });
const outcome = await config[method](...args).then(
  (value) => ({ value }),
  ({ name, code, reason, message }) => ({ error: { name, code, reason, message } }),
);
process.stdout.write(`${JSON.stringify(outcome)}\n`);
