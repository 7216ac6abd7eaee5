// An app in a process of its own that catches nothing: `node crash.mjs` makes the call that its stdin has, as JSON, on
// the built library. So its arguments and environment hold no secret of their own.
import { text } from "node:stream/consumers";
import { ConfigS3 } from "../../dist/index.js";

const { settings, litestream, method, args = [] } = JSON.parse(await text(process.stdin));
const config = new ConfigS3(settings, { envFile: false, litestream });
console.log(config, JSON.stringify(config), `${config}`, await config[method](...args));
