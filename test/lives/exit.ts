import { appGone } from "./boot.ts";
import { isInTheWay, leaveFootprints, welcome } from "./company.ts";
import type { Exit } from "./deployment.ts";
import { look } from "./machines.ts";
import { Report } from "./report.ts";
import type { Running } from "./running.ts";
import type { Now, Stage } from "./stage.ts";
import { beginPhase, endPhase } from "./troubles.ts";

/** The app has called onShutdown(), and somebody ends its process: only its exit code, its log and its disk say what has come of it. */
export async function exit(stage: Stage, now: Now, app: Running, end: Exit): Promise<void> {
  const { version, downgraded } = now;
  const guest = await welcome(stage, now);
  app.order("stop");
  await app.until("closed");
  const { broken } = stage.model;
  const mayDamage = !version.is03 && (guest !== undefined || stage.litestreamWasHere);
  beginPhase(stage, { fault: end.fault, signal: undefined }, app, "shutdown");
  app.order("go");
  await app.until("stopping");
  if (end.by === "library" || end.by === "handler") app.kill("SIGTERM");
  const leaves = guest?.plan.leaves === "soon" && setTimeout(guest.leave, guest.plan.afterMs);
  const { code, signal } = await app.ended;
  endPhase(stage);
  stage.readRecord();
  const { acked } = stage.model;
  // It may prove what the first process could not.
  if (leaves && guest.plan.who === "late") await guest.ended;
  if (leaves) clearTimeout(leaves);
  await stage.stopCompany();
  stage.readRecord();
  leaveFootprints(stage, guest);
  if (signal !== null) {
    if (stage.hasLocal && mayDamage) stage.model.damaged();
    return await appGone(stage, app, "shutdown", true);
  }
  const by = end.by === "library" ? "the library" : `another's ${end.by}`;
  stage.writers.add(version);
  // The file may have come from the replica, and be as it was, or have been on its way out.
  const stays = code === 0 && stage.hasLocal && guest?.plan.who !== "late";
  Report.count(
    stage.report.exits,
    `${by}: exit code ${code}, ${stays ? "proven, and here" : stage.hasLocal ? "unproven" : "proven"}`,
  );
  const isNobodys = stage.overtaken !== undefined || stage.model.broken;
  if (stays && isNobodys && acked > (app.events.content?.at(-1)?.to ?? 0))
    stage.fail(
      `exit code 0 (${by}), but the database is here, and another machine has written to the replica`,
    );
  if (stays && !isNobodys) await look(stage, acked, `exit code 0 (${by}), and the database is here:`);
  if (stage.hasLocal && code !== 0 && !/"level":50/.test(app.stderr))
    stage.fail(`the process has ended (${by}) with ${code} before the proof, and the log has no error`);
  if (!stage.hasLocal) stage.model.proven();
  else if (stays && !isNobodys) stage.model.proven(acked);
  else if (mayDamage) stage.model.damaged();
  const troubled =
    end.fault !== undefined ||
    isInTheWay(guest, false) ||
    guest?.plan.who === "reader" ||
    (broken && !version.is03) ||
    stage.small ||
    downgraded ||
    stage.footprints ||
    stage.overtaken !== undefined;
  if (end.by === "library" && !troubled && code !== 0)
    stage.fail(`nothing was wrong, but the exit code is ${code}: ${app.stderr.slice(-3000)}`);
  const [, accusation] = /"reason":"(replica-moved|foreign-backup|in-use)"/.exec(app.stderr) ?? [];
  stage.justify(accusation);
  if (accusation === "in-use" && guest === undefined)
    stage.fail("a false accusation: the log says in-use, but no other process has the database open");
}
