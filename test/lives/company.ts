import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readlinkSync } from "node:fs";
import { KEY, replicaUrl, TOKEN } from "../support/s3.ts";
import type { Company } from "./deployment.ts";
import type { Life } from "./history.ts";
import { Report } from "./report.ts";
import type { Outcome, Running } from "./running.ts";
import { HURRIED_SECONDS, type Now, PATIENT_SECONDS, type Stage, type Version } from "./stage.ts";

/** Longer than between two looks at who has the database open. */
const LOOKS_MS = 2000;

/** Another process that has the database open while the app shuts down. */
interface Guest {
  readonly plan: Company;
  /** Has it close the database. */
  leave(): void;
  readonly ended: Promise<unknown>;
  /** When it had certainly closed the database, by the clock of all processes; `undefined`: not yet. */
  readonly goneAt: () => number | undefined;
  /** It says what has become of it; a litestream says nothing. */
  readonly running: Running | undefined;
}

/** Lets it in; `undefined` where it could not open the database. */
export async function welcome(stage: Stage, { life, version }: Now): Promise<Guest | undefined> {
  const plan = life.end.how === "crash" ? undefined : life.end.company;
  if (plan === undefined) return undefined;
  Report.count(stage.report.faults, `another process has the database open: ${plan.who}, ${plan.leaves}`);
  if (plan.who === "litestream") return await foreignLitestream(stage, plan, version);
  const role = plan.who === "late" ? "late" : "reader";
  const running = stage.start(role, version, {
    // Without its pragmas: a database that litestream is reading can't leave WAL.
    idle: plan.who === "idle",
    work: { rows: 2, bytes: 10, churn: false },
    seconds: plan.leaves === "never" ? HURRIED_SECONDS : PATIENT_SECONDS * stage.patience,
  });
  stage.company.push(running);
  await running.ready();
  if (running.ended_ !== undefined) stage.fail(`the ${role} could not open the database: ${running.stderr}`);
  const { ended } = running;
  return { plan, leave: () => running.order("leave"), ended, goneAt: endOf(ended), running };
}

/** `litestream replicate` by hand. To the same place it writes there too: nobody says then what the replica holds. */
async function foreignLitestream(stage: Stage, plan: Company, version: Version): Promise<Guest | undefined> {
  const path = plan.place === "same" ? stage.path : `${stage.path}-by-hand`;
  const env = {
    PATH: process.env.PATH,
    LITESTREAM_ACCESS_KEY_ID: KEY,
    LITESTREAM_SECRET_ACCESS_KEY: TOKEN,
  };
  const args = ["replicate", stage.dbpath, replicaUrl(stage.s3.port, path)];
  const child = spawn(version.file, args, { stdio: "ignore", env });
  const ended = once(child, "exit");
  stage.company.push({ ended, kill: (signal) => child.kill(signal) });
  // On top of what another machine has written: then nobody says what is newest there.
  if (plan.place === "same" && stage.overtaken !== undefined) stage.mixed = true;
  else if (plan.place === "same") stage.byHand = true;
  while (child.exitCode === null && child.signalCode === null && !hasOpen(child.pid, stage.dbpath))
    await new Promise((done) => setTimeout(done, 10));
  if (child.exitCode !== null || child.signalCode !== null) return undefined;
  return { plan, leave: () => void child.kill("SIGINT"), ended, goneAt: endOf(ended), running: undefined };
}

function endOf(ended: Promise<unknown>): () => number | undefined {
  let at: number | undefined;
  void ended.then(() => {
    at = Number(process.hrtime.bigint() / 1000n) / 1000;
  });
  return () => at;
}

function hasOpen(pid: number | undefined, file: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === file);
  } catch {
    return false; // it has ended, or closed one meanwhile
  }
}

/** Both litestreams have worked in one folder: what is there tells nothing for as long as the database is. */
export function leaveFootprints(stage: Stage, guest: Guest | undefined): void {
  if (guest?.plan.who === "litestream" && stage.hasLocal) stage.footprints = true;
}

/** Whether such a guest alone keeps the app from its proof. */
export function isInTheWay(guest: Guest | undefined, keeps: boolean): boolean {
  return guest !== undefined && !keeps && (guest.plan.leaves === "never" || guest.plan.who === "litestream");
}

/** `in-use` was no excuse, and `true` did not come while somebody had the database open. */
export function holdAnswer(
  stage: Stage,
  guest: Guest | undefined,
  { value, error }: Outcome,
  answeredAt: number | undefined,
  life: Life,
  keeps: boolean,
): void {
  const { ok, reason } = (value ?? { ok: false, ...error }) as { ok: boolean; reason?: string };
  const writes = life.end.how === "shutdown" && life.end.writer === "other";
  const goneAt = guest === undefined ? 0 : guest.goneAt();
  const isGone = goneAt !== undefined && answeredAt !== undefined && goneAt < answeredAt - LOOKS_MS;
  if (reason === "in-use" && isGone && !writes)
    stage.fail("a false accusation: the answer is in-use, but no other process has the database open");
  if (guest === undefined || keeps || !ok) return;
  const { running, plan } = guest;
  if (plan.leaves === "never")
    stage.fail(`the answer is true, but another process (${plan.who}) had the database open`);
  const { closingAt } = running?.events ?? {};
  if (
    running !== undefined &&
    answeredAt !== undefined &&
    !(closingAt !== undefined && closingAt < answeredAt)
  )
    stage.fail(
      `the answer is true, but another process (${plan.who}) closed the database later: ${closingAt}, ${answeredAt}`,
    );
}

/** The second process of the app has had its answer too: one of the two has proven everything. */
export async function holdLate(stage: Stage, guest: Guest | undefined, ok: boolean): Promise<boolean> {
  if (guest?.plan.who !== "late" || guest.plan.leaves === "never" || guest.running === undefined) return ok;
  await guest.ended;
  stage.readRecord();
  const { result } = guest.running.events;
  const { value, error } = result ?? {};
  const second = value as { ok: boolean; reason?: string } | undefined;
  Report.count(stage.report.answers, `second process: ${error?.code ?? (second?.ok || second?.reason)}`);
  if (error?.code === "DATABASE_NOT_FOUND" && !ok && stage.hasLocal)
    stage.fail("the second process found no database, but it is there");
  return ok || second?.ok === true;
}
