import { fillDisk } from "../support/disk.ts";
import type { FaultPlan } from "./faults.ts";
import { rival, takeOver } from "./machines.ts";
import { Report } from "./report.ts";
import type { Outcome, Running } from "./running.ts";
import {
  BOOT_SECONDS,
  HURRIED_SECONDS,
  type Now,
  PATIENT_SECONDS,
  type Stage,
  type Version,
} from "./stage.ts";
import { beginPhase, endPhase, jumpClock, keepLitter, vanish } from "./troubles.ts";

export function startApp(stage: Stage, { life, version }: Now): Running {
  const { work, boot, killStep } = life;
  const end = life.end.how === "crash" ? undefined : life.end;
  const others = end?.how === "shutdown" && (end.writer !== "none" || end.disk !== undefined);
  const inVain = isLasting(end?.fault) || others || end?.company?.leaves === "never";
  return stage.start("app", version, {
    database: stage.database,
    bootSeconds: isLasting(boot.fault) ? HURRIED_SECONDS : BOOT_SECONDS * stage.patience,
    syncSeconds: PATIENT_SECONDS * stage.patience,
    small: stage.small,
    work: { ...work, rows: work.by === "app" ? stage.rowsOf(life) : 0 },
    continuous: life.continuous && {
      ...life.continuous,
      seconds: isLasting(life.continuous.fault) ? HURRIED_SECONDS : PATIENT_SECONDS * stage.patience,
    },
    end: end && {
      ...end,
      seconds: inVain ? HURRIED_SECONDS : PATIENT_SECONDS * stage.patience,
      close: end.how === "exit" || (end.close && end.writer !== "same"),
    },
    killStep,
    spelling: life.spelling,
  });
}

/** @returns whether the app goes on to the next phase */
export async function boot(stage: Stage, now: Now, app: Running): Promise<boolean> {
  const { life, hadLocal } = now;
  const empty = stage.small && life.boot.disk === "full" && !hadLocal ? fillDisk(stage.folder) : undefined;
  if (empty) Report.count(stage.report.faults, "full disk at boot");
  await app.until("booting");
  beginPhase(stage, life.boot, app, "boot");
  await app.until("boot");
  endPhase(stage);
  empty?.();
  app.order("open");
  const { boot } = app.events;
  if (boot?.error) {
    await bootFailed(stage, now, boot.error, app);
    return false;
  }
  await app.until("content");
  const { content } = app.events;
  if (content === undefined) {
    await appGone(stage, app, "boot", hadLocal);
    return false;
  }
  stage.orphan = false;
  stage.report.boots += 1;
  stage.hold(() => stage.model.booted(content, hadLocal));
  return true;
}

/** @returns whether the app goes on to the next phase */
export async function work(stage: Stage, { life, version, downgraded }: Now, app: Running): Promise<boolean> {
  const { work } = life;
  const rows = stage.rowsOf(life);
  app.order("work");
  if (work.by === "other") {
    const other = stage.start("writer", version, { work: { ...work, rows } });
    stage.company.push(other);
    await other.ended;
  }
  await app.until("wrote");
  stage.readRecord();
  const { synced } = app.events;
  if ((synced?.value as { ok: boolean } | undefined)?.ok) {
    // What came after it is not in it; that much was acknowledged before.
    stage.model.proven(Math.max(stage.model.replicated, stage.model.acked - rows));
    stage.writers.add(version);
  } else if (synced && !stage.footprints && !stage.small && !downgraded) {
    stage.fail(`a healthy store, but no proof: ${JSON.stringify(synced)}`);
  }
  if (app.ended_ !== undefined) {
    await appGone(stage, app, "work", true);
    return false;
  }
  keepLitter(stage);
  if (work.clockJump !== 0) jumpClock(stage, work.clockJump);
  if (life.vanish !== undefined) await vanish(stage, life.vanish);
  if (life.rival !== undefined && !downgraded) await rival(stage, life.rival, version);
  return true;
}

async function bootFailed(
  stage: Stage,
  { life, version }: Now,
  error: NonNullable<Outcome["error"]>,
  app: Running,
): Promise<void> {
  await app.ended;
  Report.count(stage.report.bootErrors, error.reason ?? error.code);
  stage.justify(error.reason);
  if (stage.footprints && error.reason === "replica-moved") return await takeOver(stage, version);
  const expected =
    life.boot.fault !== undefined ||
    life.boot.signal !== undefined ||
    (stage.small && life.boot.disk !== undefined);
  if (!expected && !stage.model.broken)
    stage.fail(`nothing was wrong, but the boot failed: ${JSON.stringify(error)}`);
  // It waits for the litestream of the app before, which has the same trouble.
  if (stage.orphan && life.boot.fault !== undefined && error.reason === "timeout") return;
  if (stage.hasLocal) stage.fail(`a failed boot, but there is a database: ${JSON.stringify(error)}`);
}

/** The app has ended without its answer: by a kill of ours, or else it is a failure. */
export async function appGone(stage: Stage, app: Running, when: string, hadLocal: boolean): Promise<void> {
  const { signal, code } = await app.ended;
  if (signal === null)
    stage.fail(`the app ended with exit code ${code} (${when}): ${app.stderr.slice(-3000)}`);
  if (app.killed === undefined) app.killed = `app, ${when}: at a step of its own`;
  if (when === "boot") {
    if (hadLocal && !stage.hasLocal) stage.fail("the boot has removed the local database");
    return;
  }
  stage.readRecord();
  stage.writers.add(stage.versions[stage.version] as Version);
  // Killed after the removal: then the replica must have everything.
  if (!stage.hasLocal) {
    stage.model.proven();
  }
}

/** No answer comes for as long as the phase lasts. */
const isLasting = (plan: FaultPlan | undefined) =>
  plan !== undefined && (plan.count === "all" || plan.fault === "stall" || plan.fault === "stall-body");
