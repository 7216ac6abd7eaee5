// An app in a process of its own that replicates for its life: `node continuous-app.mjs CALL-AS-JSON`. It says when it
// replicates, then commits rows until its stdin ends or says otherwise, and says how many there are.
import { createInterface } from "node:readline";
import Database from "libsql";
import { ConfigS3 } from "../../dist/index.js";

const { settings, litestream } = JSON.parse(process.argv[2]);
const config = new ConfigS3(settings, { envFile: false, litestream });
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const db = new Database(config.dbpath);
const replication = await config.replicate({ startTimeoutSeconds: 50 });
say({ replicating: replication.status().running });
// `write N`: so many rows; `exit`: the process ends without a stop.
createInterface({ input: process.stdin }).on("line", (line) => {
  const [word, n] = line.split(" ");
  if (word === "exit") process.exit(0);
  for (let i = 0; i < Number(n); i += 1) db.exec("INSERT INTO t (body) VALUES ('of the app')");
  say({ rows: db.prepare("SELECT count(*) AS n FROM t").get().n });
});
