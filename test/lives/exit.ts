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
  // Who says nothing says that all is proven: the file is as it came from the replica, or as it was at a proof, or on its way out.
  const isTold = code !== 0 && /"level":50/.test(app.stderr);
  const stays = stage.hasLocal && !isTold && guest?.plan.who !== "late";
  const what = stays ? "proven, and here" : stage.hasLocal ? "unproven" : "proven";
  Report.count(stage.report.exits, `${by}: exit code ${code}, ${what}`);
  const when = `the process has ended (${by}) with ${code} and without an error, and the database is here:`;
  const isNobodys = stage.overtaken !== undefined || stage.model.broken;
  const { content, synced } = app.events;
  const isAsItWas = acked <= (content?.at(-1)?.to ?? 0) || synced !== undefined;
  if (stays && isNobodys && !isAsItWas) stage.fail(`${when} another machine has written to the replica`);
  if (stays && !isNobodys) await look(stage, acked, when);
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
