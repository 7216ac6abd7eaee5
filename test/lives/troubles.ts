import { cpSync, existsSync, lutimesSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import type { Fault } from "../support/fault-proxy.ts";
import { deadPid, processesWith } from "../support/processes.ts";
import { secretIn } from "../support/secrets.ts";
import type { FaultPlan, Phase, SignalPlan } from "./faults.ts";
import { Report } from "./report.ts";
import { type Running, signalAll } from "./running.ts";
import { HAND_MADE, type Stage } from "./stage.ts";

export function keepLitter(stage: Stage): void {
  const to = join(stage.root, "litter");
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  for (const name of ["db.sqlite-wal", "db.sqlite-shm", ".db.sqlite-litestream"]) {
    const from = join(stage.folder, name);
    if (existsSync(from)) cpSync(from, join(to, name), { recursive: true });
  }
  stage.litter = to;
}

export function plantLitter(stage: Stage): void {
  Report.count(stage.report.faults, "leftovers of an older life");
  if (stage.litter) cpSync(stage.litter, stage.folder, { recursive: true });
  const abandoned = `db.sqlite.restore-${deadPid()}-0123abcd`;
  for (const name of [HAND_MADE, abandoned, `${abandoned}.tmp-wal`, "db.sqlite-journal"]) {
    writeFileSync(join(stage.folder, name), "left over");
  }
}

export function jumpClock(stage: Stage, days: number): void {
  Report.count(stage.report.faults, "the clock jumps by a day");
  const time = Date.now() / 1000 + days * 86_400;
  for (const name of readdirSync(stage.folder)) lutimesSync(join(stage.folder, name), time, time);
}

export async function vanish(stage: Stage, share: number): Promise<void> {
  const keys = await stage.s3.keys(stage.path);
  const key = keys[Math.floor(share * keys.length)];
  if (key === undefined) return;
  await stage.s3.expire(key);
  Report.count(stage.report.faults, "an object vanishes from the bucket");
  stage.model.damaged();
}

/** Arms the faults and signals of a phase. */
export function beginPhase(
  stage: Stage,
  phase: Phase,
  app: Running,
  name: "boot" | "replicating" | "shutdown",
): void {
  const { fault, signal } = phase;
  let requests = 0;
  const atRequest = signal && signaller(stage, signal, app, name);
  if (signal?.atRequest === 0) atRequest?.();
  const plan = fault && planned(stage, fault);
  stage.proxy.fault = (request) => {
    requests += 1;
    if (requests === 1) stage.leak ??= secretIn(processesWith(stage.root).join("\n"));
    if (requests === signal?.atRequest) atRequest?.();
    return plan?.(request);
  };
}

/** Nothing happens to what comes after the phase. */
export function endPhase(stage: Stage): void {
  stage.proxy.fault = () => undefined;
  for (const signal of stage.signals.splice(0)) clearTimeout(signal);
}

function planned(
  stage: Stage,
  { fault, to, after, count }: FaultPlan,
): (request: IncomingMessage) => Fault | undefined {
  let seen = 0;
  return ({ method }) => {
    if (to !== "any" && method !== to) return undefined;
    seen += 1;
    if (seen <= after || (count !== "all" && seen > after + count)) return undefined;
    Report.count(
      stage.report.faults,
      `S3: ${typeof fault === "string" ? fault : "status" in fault ? fault.status : "slow"}`,
    );
    return fault;
  };
}

export function signaller(
  stage: Stage,
  { who, signal, laterMs }: SignalPlan,
  app: Running,
  phase: string,
): () => void {
  const send = () => {
    if (who !== "app") {
      const name = who === "both" ? "SIGKILL" : signal;
      const hits = signalAll(stage.folder, name);
      Report.count(stage.report.kills, `litestream, ${phase}: ${name}`, hits);
      if (stage.beside && hits > 0) {
        stage.beside.hit = true;
        stage.beside.struck = app.events.replicating !== undefined;
      }
    }
    if (who !== "litestream" && app.kill("SIGKILL"))
      app.killed = who === "both" ? `app, ${phase}, after its litestream` : `app, ${phase}`;
  };
  return laterMs === 0 ? send : () => void stage.signals.push(setTimeout(send, laterMs));
}
