// Adds the tests of every report to the checks, names what was skipped and what failed only beside others, and ends with
// the line that is read: `node summary.mjs REPORTS-FOLDER CHECKS-PASSED CHECKS-FAILED CHECKS-SKIPPED`.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [folder, ...checks] = process.argv.slice(2);
const [checksPassed, checksFailed, checksSkipped] = checks.map(Number);
const AGAIN = ".again.json";

/** Each test of a report, by its file and name. */
function testsOf(file) {
  const { testResults } = JSON.parse(readFileSync(file, "utf8"));
  return testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ fullName, status }) => ({ id: `${name} ${fullName}`, fullName, status })),
  );
}

const total = { passed: checksPassed, failed: checksFailed, skipped: checksSkipped };
for (const name of readdirSync(folder).sort()) {
  if (name.endsWith(AGAIN)) continue;
  const again = join(folder, name.replace(/\.json$/, AGAIN));
  const second = new Map(existsSync(again) ? testsOf(again).map(({ id, status }) => [id, status]) : []);
  for (const { id, fullName, status } of testsOf(join(folder, name))) {
    if (status === "passed") total.passed += 1;
    else if (status !== "failed") {
      total.skipped += 1;
      console.log(`skipped in ${name}: ${fullName}`);
    } else if (second.get(id) === "passed") {
      total.passed += 1;
      console.log(`failed beside others in ${name}, passed alone: ${fullName}`);
    } else {
      total.failed += 1;
      console.log(`failed in ${name}: ${fullName}`);
    }
  }
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
