import { processesWith } from "../support/processes.ts";
import { appGone } from "./boot.ts";
import type { Continuous } from "./history.ts";
import { knowsReplica, look, rival } from "./machines.ts";
import { Report } from "./report.ts";
import { type Outcome, type Running, signalAll } from "./running.ts";
import {
  type Beside,
  LAST_MS,
  MISSES_COMMITS,
  type Now,
  OVERTIME_MS,
  type Stage,
  type Version,
} from "./stage.ts";
import { beginPhase, endPhase, signaller } from "./troubles.ts";

const RECOVERY_MS = 150_000;

/** From the call of replicate() to the last row beside it, and what is to follow; @returns whether the app goes on to its end */
export async function replicateBeside(
  stage: Stage,
  { life, version, downgraded }: Now,
  app: Running,
): Promise<boolean> {
  const plan = life.continuous;
  if (plan === undefined || downgraded) return true;
  const { acked, broken } = stage.model;
  const mayDamage = !version.is03 && (stage.litestreamWasHere || broken);
  const beside: Beside = { started: false, hit: plan.fault !== undefined, struck: false, mayDamage };
  stage.beside = beside;
  beginPhase(stage, plan, app, "replicating");
  app.order("replicate");
  await app.until("replicating");
  const { replicating, startOvertimeMs = 0 } = app.events;
  if (replicating?.value !== undefined) {
    beside.started = true;
    beside.mayDamage = MISSES_COMMITS.test(version.name);
    stage.writers.add(version);
    if (stage.overtaken !== undefined)
      stage.fail("another machine has written to the replica, but it replicates");
    // Where objects have vanished, only a shutdown looks for that.
    if (!broken || version.is03) stage.model.proven(Math.max(acked, stage.model.replicated));
    if (plan.strike) {
      signaller(
        stage,
        { who: "litestream", signal: plan.strike, atRequest: 0, laterMs: 0 },
        app,
        "replicating",
      )();
    }
    if (plan.look && !stage.model.broken && !beside.mayDamage) await look(stage, acked, "once it replicates");
  }
  await app.until("beside");
  endPhase(stage);
  stage.readRecord();
  if (app.ended_ !== undefined) {
    await appGone(stage, app, "replicating", true);
    return false;
  }
  if (replicating?.error !== undefined) {
    refused(stage, replicating.error, version, plan, startOvertimeMs);
    return true;
  }
  Report.count(stage.report.continuous, "begun");
  if (plan.settle || plan.rival) await settle(stage, app, beside, version);
  if (app.ended_ !== undefined) {
    await appGone(stage, app, "replicating", true);
    return false;
  }
  if (plan.rival && !stage.model.broken && knowsReplica(stage, version)) {
    await rival(stage, plan.rival.rows, version);
    if (plan.rival.more > 0) {
      await more(stage, plan.rival.more, app);
      stage.mixed = true;
    }
    // They begin while its litestream still runs.
    if (life.end.how === "shutdown" && life.end.writer !== "none") stage.mixed = true;
  }
  if (plan.kill === undefined) return true;
  // What is not up yet when it is killed.
  if (stage.overtaken === undefined) await more(stage, plan.rows, app);
  if (plan.kill === "both") {
    beside.hit = true;
    Report.count(stage.report.kills, "litestream, replicating: SIGKILL", signalAll(stage.folder, "SIGKILL"));
  }
  app.kill("SIGKILL");
  app.killed = plan.kill === "both" ? "app, replicating, after its litestream" : "app, replicating";
  await appGone(stage, app, "replicating", true);
  return false;
}

/** Commits so many rows more. */
async function more(stage: Stage, rows: number, app: Running): Promise<void> {
  app.order(`more ${rows}`);
  await app.until("more");
  stage.readRecord();
}

/** replicate() has rejected, as it must, or may. */
function refused(
  stage: Stage,
  error: NonNullable<Outcome["error"]>,
  version: Version,
  plan: Continuous,
  overtimeMs: number,
): void {
  Report.count(stage.report.continuous, `refused: ${error.reason ?? error.code}`);
  stage.justify(error.reason);
  // It begins to end what it has started at its deadline.
  if (overtimeMs > 2 * OVERTIME_MS) {
    stage.report.deadlinesMissed += 1;
    stage.fail(`replicate() rejected ${Math.round(overtimeMs)} ms after its deadline`);
  }
  if (
    stage.footprints ||
    stage.model.broken ||
    stage.small ||
    plan.fault !== undefined ||
    plan.signal !== undefined
  )
    return;
  const expected =
    stage.overtaken !== undefined
      ? error.reason === "replica-moved"
      : version.mute && error.code === "LITESTREAM_UNSUPPORTED";
  if (!expected) stage.fail(`replicate() rejected: ${JSON.stringify(error)}`);
}

/** All is up in the end, it says so, and it is so. */
async function settle(stage: Stage, app: Running, beside: Beside, version: Version): Promise<void> {
  app.order("settle");
  await inTime(app.until("settled"), RECOVERY_MS, () =>
    stage.fail(`it does not say that all is up: ${app.stderr.slice(-3000)}`),
  );
  const { settled } = app.events;
  stage.readRecord();
  if (settled === undefined) return;
  const { heard, restarts } = settled;
  const inTurn = heard.every((word, i) => word.startsWith(i % 2 === 0 ? "failing" : "recovered"));
  if (!inTurn || heard.length % 2 === 1) stage.fail(`it recovered, and said ${JSON.stringify(heard)}`);
  if (beside.struck && (restarts === 0 || heard.length === 0))
    stage.fail(`litestream was killed, and all that it said is ${JSON.stringify(settled)}`);
  if (restarts > 0) Report.count(stage.report.continuous, "started again", restarts);
  if (MISSES_COMMITS.test(version.name) || stage.model.broken) return;
  const { acked } = stage.model;
  for (const end = Date.now() + LAST_MS; ; ) {
    try {
      await look(stage, acked, "once all was said to be up");
      break;
    } catch (error) {
      // It may have said that of what it read before the last commit.
      if (Date.now() > end) throw error;
    }
  }
  stage.model.proven(acked);
  beside.hit = false;
  beside.struck = false;
  Report.count(stage.report.continuous, "all up");
}

/** The life is over. Where its app was killed, its litestream ends by itself, after it has brought up what there was. */
export async function orphaned(
  stage: Stage,
  { life, version }: Now,
  app: Running,
  beside: Beside,
): Promise<void> {
  const plan = life.continuous as Continuous;
  if (app.killed !== undefined && stage.hasLocal && (beside.mayDamage || (beside.hit && !version.is03)))
    stage.model.damaged();
  if (
    app.killed !== undefined &&
    plan.hurry &&
    !stage.mixed &&
    stage.overtaken === undefined &&
    !beside.hit
  ) {
    stage.orphan = processesWith(stage.folder).length > 0;
    if (stage.orphan) Report.count(stage.report.continuous, "a boot beside the litestream of a killed app");
    return;
  }
  await stage.noProcessIn(stage.folder, LAST_MS);
  const isSure = beside.started && !beside.hit && !beside.mayDamage && !stage.model.broken;
  if (app.killed?.startsWith("app, replicating") && isSure && stage.overtaken === undefined) {
    await look(
      stage,
      stage.model.acked,
      "after the last synchronisation of a litestream whose app was killed",
    );
    stage.model.proven();
    Report.count(stage.report.continuous, "brought up what a killed app had committed");
  }
}

async function inTime(promise: Promise<void>, ms: number, late: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<true>((resolve) => {
    timer = setTimeout(() => resolve(true), ms);
  });
  const isLate = await Promise.race([promise, limit]);
  clearTimeout(timer);
  if (isLate) late();
}
