import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { processesWith } from "../support/processes.ts";
import type { S3 } from "../support/s3.ts";
import { secretIn } from "../support/secrets.ts";
import { orphaned, replicateBeside } from "./beside.ts";
import { boot, startApp, work } from "./boot.ts";
import { type History, type Life, PLAIN } from "./history.ts";
import { bootDowngraded, changeMachine, checkDisk, giveUp, takeBack } from "./machines.ts";
import { befall } from "./mishaps.ts";
import { Report } from "./report.ts";
import { shutDown } from "./shutdown.ts";
import { Stage, type Version } from "./stage.ts";
import { endPhase, plantLitter } from "./troubles.ts";

let histories = 0;

/**
 * Plays a history on real parts and holds what comes of it against the model: how many rows the local database must
 * hold, how many the replica, and whose rows they are.
 * @param versions the litestreams there are, the oldest first
 * @throws Error where an invariant is broken
 */
export async function play(
  history: History,
  versions: readonly Version[],
  s3: S3,
  report: Report,
): Promise<void> {
  histories += 1;
  const path = `lives/${process.pid}-${histories}/db`;
  const root = mkdtempSync(join(tmpdir(), "litestream-s3-lives-"));
  const proxy = await startFaultProxy(s3.port);
  const stage = new Stage(history, versions, s3, proxy, root, path, report);
  try {
    report.histories += 1;
    for (const life of history.lives) if (!stage.isOver) await live(stage, life);
    await lastLives(stage);
  } finally {
    await proxy.stop();
    stage.tearDown();
    rmSync(root, { recursive: true, force: true });
  }
}

async function live(stage: Stage, life: Life): Promise<void> {
  stage.lives += 1;
  stage.report.lives += 1;
  const before = stage.version;
  stage.version = Math.max(0, Math.min(stage.versions.length - 1, before + life.litestream));
  const version = stage.versions[stage.version] as Version;
  const downgraded = [...stage.writers].some(
    (writer) => stage.versions.indexOf(writer) > stage.version && !(writer.is03 && version.is03),
  );
  Report.count(stage.report.litestreams, version.name);

  if (life.disk === "empty" && !stage.model.broken && stage.lives > 1) await changeMachine(stage);
  if (life.before !== undefined && !downgraded) await befall(stage, life.before, version);
  if (downgraded && !stage.hasLocal) {
    await bootDowngraded(stage, version);
    stage.version = before; // the operator has seen the warning
    return;
  }
  if (!stage.hasLocal) stage.footprints = false;
  if (!stage.hasLocal && life.litter) plantLitter(stage);
  const now = { life, version, downgraded, hadLocal: stage.hasLocal };
  const app = startApp(stage, now);
  try {
    (await boot(stage, now, app)) &&
      (await work(stage, now, app)) &&
      (await replicateBeside(stage, now, app)) &&
      (await shutDown(stage, now, app));
  } finally {
    endPhase(stage);
    await stage.stopCompany();
    app.kill("SIGKILL");
    await app.ended;
    if (app.killed) Report.count(stage.report.kills, app.killed);
    const leak = secretIn(app.stderr) ?? stage.leak;
    if (leak !== undefined) stage.fail(`the ${leak} is in the output of the app, or in an argument list`);
  }
  if (stage.beside !== undefined) await orphaned(stage, now, app, stage.beside);
  stage.beside = undefined;
  if (stage.mixed) return await checkDisk(stage);
  if (stage.byHand) await takeBack(stage, version);
  if (stage.overtaken !== undefined) await giveUp(stage, version, stage.overtaken);
}

/** The last two lives: nothing happens to them, and so both must succeed. */
async function lastLives(stage: Stage): Promise<void> {
  const newest = Math.max(
    stage.version,
    ...[...stage.writers].map((writer) => stage.versions.indexOf(writer)),
  );
  stage.version = newest;
  if (stage.isOver) return;
  await live(stage, PLAIN);
  await live(stage, { ...PLAIN, disk: "empty" });
  for (let tries = 0; processesWith(stage.root).length > 0; tries += 1) {
    if (tries > 500) stage.fail(`processes are left over: ${processesWith(stage.root).join("; ")}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
