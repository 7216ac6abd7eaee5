// Takes the locks of databases `0.db`, `1.db`… in FOLDER, one every 5 ms from START on, and tells which it got:
// `node lock-race.mjs FOLDER COUNT START`.
const { lockDatabase } = await import("../../dist/database-lock.js");

const [, , folder, count, start] = process.argv;
const got = [];
for (let i = 0; i < Number(count); i += 1) {
  while (performance.timeOrigin + performance.now() < Number(start) + i * 5);
  got.push(lockDatabase(`${folder}/${i}.db`) !== undefined);
}
console.log(JSON.stringify(got));
