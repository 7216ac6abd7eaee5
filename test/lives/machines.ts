import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Stretch } from "./model.ts";
import { Report } from "./report.ts";
import { type Events, signalAll } from "./running.ts";
import { BOOT_SECONDS, LAST_MS, PATIENT_SECONDS, type Stage, type Version } from "./stage.ts";

/** Where this machine has a record of the replica that its litestream can compare. */
export function knowsReplica(stage: Stage, version: Version): boolean {
  try {
    const record = readFileSync(join(stage.folder, ".db.sqlite-litestream-s3"), "utf8");
    const format = version.is03 ? "0.3 " : "0.5 ";
    const { replicas }: { replicas: { place: string; position?: unknown }[] } = JSON.parse(record);
    return replicas.some(({ place, position }) => place.startsWith(format) && position !== undefined);
  } catch {
    return false;
  }
}

/** Another machine has its whole life between two steps of this one's. */
export async function rival(stage: Stage, rows: number, version: Version): Promise<void> {
  if (stage.model.broken || !knowsReplica(stage, version)) return;
  const folder = join(stage.root, `rival-${stage.lives}`);
  mkdirSync(folder);
  const life = 1000 + stage.lives;
  const rival = stage.start("app", version, {
    life,
    dbpath: join(folder, "db.sqlite"),
    acks: join(stage.root, "rival-acks"),
    folder,
    database: stage.database,
    bootSeconds: BOOT_SECONDS,
    work: { rows, bytes: 10, churn: false, sync: false, checkpoint: "NONE" },
    end: { close: true, writer: "none", calls: 1, seconds: PATIENT_SECONDS },
  });
  for (const word of ["open", "work", "stop", "go"]) rival.order(word);
  await rival.ended;
  const { content, result } = rival.events;
  if (!(result?.value as { ok: boolean } | undefined)?.ok || content === undefined)
    stage.fail(
      `the other machine's life went wrong: ${JSON.stringify(rival.events)} ${rival.stderr.slice(-2000)}`,
    );
  Report.count(stage.report.faults, "another machine writes to the replica");
  const from = (content.at(-1)?.to ?? 0) + 1;
  stage.overtaken = [...content, { life, from, to: from + rows - 1 }];
}

/**
 * The life in which another machine has written is over. Its rows, acknowledged, are in the newest backup; this machine's are on its
 * disk, and no boot there goes on as if nothing were. Then this machine is given up.
 */
export async function giveUp(stage: Stage, version: Version, content: Stretch[]): Promise<void> {
  stage.overtaken = undefined;
  if (!stage.hasLocal) {
    stage.report.localFilesWronglyDeleted += 1;
    stage.fail("another machine has written to the replica, and the local database is gone");
  }
  const boot = stage.start("app", version, { database: stage.database, bootSeconds: BOOT_SECONDS });
  await boot.until("boot");
  const { reason } = boot.events.boot?.error ?? {};
  boot.kill("SIGKILL");
  await boot.ended;
  if (reason !== "replica-moved")
    stage.fail(
      `another machine has written to the replica, but the boot said ${JSON.stringify(boot.events.boot)}`,
    );
  await changeMachine(stage);
  stage.model.replacedBy(content);
}

/** The machine is gone with its disk: what it alone had is lost, as promised; it must have had it, though. */
export async function changeMachine(stage: Stage): Promise<void> {
  // And all that ran there.
  signalAll(stage.folder, "SIGKILL");
  await stage.noProcessIn(stage.folder, LAST_MS);
  stage.orphan = false;
  await checkDisk(stage);
  stage.newDisk();
  stage.model.diskLost();
}

export async function checkDisk(stage: Stage): Promise<void> {
  if (!existsSync(stage.dbpath) || stage.model.acked === 0) return;
  const check = stage.start("check", stage.versions[stage.version] as Version, {});
  await check.ended;
  const { content, damaged } = check.events as Events & { damaged?: string };
  if (content === undefined) stage.fail(`the local database can't be read: ${damaged ?? check.stderr}`);
  stage.hold(() => stage.model.check(content, stage.model.acked, "on the old disk"));
}

/** What the replica holds is not this machine's any more, or nobody knows: an operator has it replaced with what is here. */
export async function takeOver(stage: Stage, version: Version): Promise<void> {
  const operator = stage.start("replicate", version, {
    takeOver: true,
    seconds: PATIENT_SECONDS * stage.patience,
  });
  await operator.ended;
  const { result } = operator.events;
  const ok = (result?.value as { ok: boolean } | undefined)?.ok === true;
  Report.count(stage.report.answers, `takeOver: ${ok}`);
  if (!ok && !stage.small)
    stage.fail(`it did not take over: ${JSON.stringify(result)} ${operator.stderr.slice(-2000)}`);
  if (ok && stage.hasLocal) stage.fail("true, but the local database is left");
  stage.writers.add(version);
  if (ok) stage.model.proven();
  else if (!version.is03) stage.model.damaged();
}

/** A litestream by hand has written to the replica while the app had its life. */
export async function takeBack(stage: Stage, version: Version): Promise<void> {
  if (stage.hasLocal) {
    await checkDisk(stage);
    await takeOver(stage, version);
  } else await look(stage, stage.model.acked, "after a litestream by hand");
  stage.byHand = stage.hasLocal;
}

/** What another machine gets from the replica just now. */
export async function look(stage: Stage, required: number, when: string): Promise<void> {
  const folder = mkdtempSync(join(stage.root, "look-"));
  const app = stage.start("app", stage.versions[stage.version] as Version, {
    dbpath: join(folder, "db.sqlite"),
    folder,
    port: stage.s3.port,
    bootSeconds: PATIENT_SECONDS,
  });
  app.order("open");
  await app.until("content");
  app.kill("SIGKILL");
  await app.ended;
  const { boot, content } = app.events;
  if (content === undefined)
    stage.fail(`${when} another machine can't restore: ${JSON.stringify(boot)} ${app.stderr.slice(-2000)}`);
  stage.readRecord();
  stage.hold(() => stage.model.check(content, required, `${when}, on another machine,`));
  rmSync(folder, { recursive: true });
}

/** An older litestream after a newer one, on an empty disk: it says so, or fails, or has every row. */
export async function bootDowngraded(stage: Stage, version: Version): Promise<void> {
  Report.count(stage.report.faults, "downgrade of litestream, empty disk");
  const app = stage.start("app", version, {
    database: stage.history.database,
    bootSeconds: BOOT_SECONDS,
  });
  app.order("open");
  await app.until("content");
  const warned = /cannot see backups made by litestream/.test(app.stderr);
  app.order("stop");
  await app.ended;
  const { boot, content } = app.events;
  if (boot === undefined) stage.fail(`the app ended in its boot: ${app.stderr.slice(-3000)}`);
  const rows = content?.at(-1)?.to ?? 0;
  if (boot.error === undefined && rows < stage.model.replicated && !warned) {
    stage.fail(`after a downgrade it starts in silence with ${rows} of ${stage.model.replicated} rows`);
  }
  stage.newDisk();
}
