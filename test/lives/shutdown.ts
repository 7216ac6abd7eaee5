import { existsSync, readdirSync } from "node:fs";
import { fillDisk, remountDisk } from "../support/disk.ts";
import { appGone } from "./boot.ts";
import { holdAnswer, holdLate, isInTheWay, leaveFootprints, welcome } from "./company.ts";
import { exit } from "./exit.ts";
import type { Life } from "./history.ts";
import { Report } from "./report.ts";
import type { Outcome, Running } from "./running.ts";
import { HAND_MADE, type Now, OVERTIME_MS, type Stage, type Version } from "./stage.ts";
import { beginPhase, endPhase } from "./troubles.ts";

export async function shutDown(stage: Stage, now: Now, app: Running): Promise<void> {
  const { life, version, downgraded } = now;
  const { end } = life;
  if (end.how === "crash") {
    app.kill("SIGKILL");
    app.killed = "app, at work";
    return await appGone(stage, app, "crash", true);
  }
  if (end.how === "exit") return await exit(stage, now, app, end);
  const guest = await welcome(stage, now);
  if (end.writer === "other") {
    const { everyMs, checkpoints } = end;
    const work = { ...life.work, rows: 1 };
    const writer = await stage.start("writer", version, { work, everyMs, checkpoints }).ready();
    stage.company.push(writer);
    setTimeout(() => writer.order("stop"), end.writerMs);
  }
  app.order("stop");
  await app.until("closed");
  const mend = stage.small ? spoilDisk(stage, end) : undefined;
  const { broken } = stage.model;
  const mayDamage =
    !version.is03 && (end.writer !== "none" || guest !== undefined || stage.litestreamWasHere);
  app.order("go");
  await app.until("stopping");
  beginPhase(stage, end, app, "shutdown");
  const leaves = guest?.plan.leaves === "soon" && setTimeout(guest.leave, guest.plan.afterMs);
  await app.until("result");
  endPhase(stage);
  const { result, others = [], overtimeMs = 0, answeredAt } = app.events;
  await app.ended;
  const first = (result?.value as { ok: boolean } | undefined)?.ok === true;
  const proven = result === undefined ? false : await holdLate(stage, guest, first);
  if (leaves) clearTimeout(leaves);
  await stage.stopCompany();
  mend?.();
  // What 0.5 uploads after a gap, before the whole copy: docs/durability.md.
  if (!proven && mayDamage) stage.model.damaged();
  if (result === undefined) leaveFootprints(stage, guest);
  if (result === undefined) return await appGone(stage, app, "shutdown", true);
  stage.readRecord();
  if (overtimeMs > OVERTIME_MS) {
    stage.report.deadlinesMissed += 1;
    stage.fail(`the answer came ${Math.round(overtimeMs)} ms after its deadline`);
  }
  const keeps = end.stop === "keep" && stage.beside?.started === true;
  const troubled =
    end.fault !== undefined ||
    end.signal !== undefined ||
    end.disk !== undefined ||
    end.writer !== "none" ||
    (guest?.plan.who === "reader" && readerIsInTheWay(stage, life)) ||
    // Where the newest objects have gone, litestream can't mend it.
    (broken && !version.is03) ||
    stage.small ||
    downgraded ||
    stage.overtaken !== undefined ||
    stage.footprints ||
    isInTheWay(guest, keeps);
  holdAnswer(stage, guest, result, answeredAt, life, keeps);
  answered(stage, result, others, version, troubled, keeps, proven);
  leaveFootprints(stage, guest);
}

function answered(
  stage: Stage,
  result: Outcome,
  others: Outcome[],
  version: Version,
  troubled: boolean,
  keeps: boolean,
  proven: boolean,
): void {
  const { error } = result;
  const value = result.value as { ok: boolean; reason?: string; message?: string } | undefined;
  Report.count(stage.report.answers, error?.code ?? (value?.ok ? "true" : `false: ${value?.reason}`));
  stage.justify(error?.reason ?? value?.reason);
  if (!value?.ok && !troubled) stage.fail(`nothing was wrong, but no proof: ${JSON.stringify(result)}`);
  const local = readdirSync(stage.folder).filter((name) => name.includes("db.sqlite") && name !== HAND_MADE);
  // 0.5 has written its own over the other's, under the same names: README.
  const unseen = stage.mixed && !version.is03;
  if (stage.mixed)
    Report.count(
      stage.report.continuous,
      `two machines in turns, and then: ${value?.ok ? "true" : value?.reason}`,
    );
  if (stage.overtaken !== undefined && value?.ok && !unseen)
    stage.fail(`another machine has written to the replica, but the answer was ${JSON.stringify(result)}`);
  if (proven) {
    if (local.length > 0 && !keeps) stage.fail(`true, but ${local.join(", ")} is left`);
    if (keeps && !existsSync(stage.dbpath))
      stage.fail("true, but the local database, which was to stay, is gone");
    stage.model.proven();
    stage.writers.add(version);
  } else {
    if (!stage.hasLocal) {
      stage.report.localFilesWronglyDeleted += 1;
      stage.fail(`not true, but the local database is gone: ${JSON.stringify(result)}`);
    }
    if (error && error.code !== "LITESTREAM_UNSUPPORTED") stage.fail(`it rejected: ${JSON.stringify(error)}`);
    stage.writers.add(version); // perhaps
  }
  const agrees = others.every(
    (other) =>
      (other.value as { ok: boolean } | undefined)?.ok === value?.ok ||
      other.error?.code === "DATABASE_NOT_FOUND",
  );
  if (!agrees && value?.ok === true)
    stage.fail(`two calls, two answers: ${JSON.stringify([result, ...others])}`);
}

/** litestream has to change to WAL, or to checkpoint a file that looks old or a long -wal, and can't while somebody reads. */
function readerIsInTheWay(stage: Stage, { work }: Life): boolean {
  const { journal, pageSize } = stage.history.database;
  return journal === "delete" || pageSize === 512 || work.clockJump !== 0 || work.rows * work.bytes > 500_000;
}

function spoilDisk(stage: Stage, shutdown: Life["end"] & { how: "shutdown" }): (() => void) | undefined {
  if (shutdown.disk === "full") {
    Report.count(stage.report.faults, "full disk at shutdown");
    return fillDisk(stage.folder);
  }
  // A file system that is written to can't be made read-only.
  if (shutdown.disk !== "read-only" || shutdown.company || shutdown.writer !== "none" || !shutdown.close)
    return undefined;
  if (!remountDisk(stage.folder, "ro")) return undefined;
  Report.count(stage.report.faults, "read-only folder at shutdown");
  return () => void remountDisk(stage.folder, "rw");
}
