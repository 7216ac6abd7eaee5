// Adds the tests of every report to the checks, names what was skipped, and ends with the line that is read:
// `node summary.mjs REPORTS-FOLDER CHECKS-PASSED CHECKS-FAILED`.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [folder, checksPassed, checksFailed] = process.argv.slice(2);
const total = { passed: Number(checksPassed), failed: Number(checksFailed), skipped: 0 };
for (const name of readdirSync(folder).sort()) {
  const report = JSON.parse(readFileSync(join(folder, name), "utf8"));
  const tests = report.testResults.flatMap(({ assertionResults }) => assertionResults);
  const counted = (...states) => tests.filter(({ status }) => states.includes(status));
  const skipped = counted("pending", "skipped", "todo");
  total.passed += counted("passed").length;
  total.failed += counted("failed").length;
  total.skipped += skipped.length;
  for (const { fullName } of skipped) console.log(`skipped in ${name}: ${fullName}`);
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
