// Takes and gives back the lock of one database again and again: `node lock-race.mjs DATABASE COUNT`. While it has it, a
// file is there that nobody else may have made; it tells how often one was there already.
import { closeSync, openSync, unlinkSync } from "node:fs";

const { withDatabaseLock } = await import("../../dist/database-lock.js");
const [, , dbpath, count] = process.argv;
const logger = { debug() {}, info() {}, warn() {}, error() {} };
let met = 0;
for (let i = 0; i < Number(count); i += 1) {
  await withDatabaseLock({ dbpath, logger }, new AbortController().signal, async () => {
    try {
      closeSync(openSync(`${dbpath}.mine`, "wx"));
    } catch {
      met += 1;
      return;
    }
    await new Promise((done) => setImmediate(done));
    unlinkSync(`${dbpath}.mine`);
  });
}
console.log(JSON.stringify(met));
