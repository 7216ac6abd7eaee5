// The files of a report in which a test failed: `node failed-files.mjs REPORT`. Fails where there are none, or more than three:
// then it is no single test that a busy machine has disturbed.
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const { testResults } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const files = testResults.filter(({ status }) => status === "failed").map(({ name }) => relative(".", name));
if (files.length === 0 || files.length > 3) process.exit(1);
console.log(files.join(" "));
