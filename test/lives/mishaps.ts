import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Mishap } from "./deployment.ts";
import { look, takeOver } from "./machines.ts";
import { startNoStore } from "./no-store.ts";
import { Report } from "./report.ts";
import type { Outcome, Running } from "./running.ts";
import { BOOT_SECONDS, PATIENT_SECONDS, type Stage, type Version } from "./stage.ts";

// What an operator does wrong between two lives, and how that is refused, and mended. After each of them the history goes on as if
// nothing had been.

/** Plays it where the disk and the replica are so that it can be. */
export async function befall(stage: Stage, mishap: Mishap, version: Version): Promise<void> {
  // The litestream of a killed app may still be writing.
  if (stage.orphan || stage.model.broken || stage.footprints) return;
  const wantsDatabase = mishap.what === "record" || mishap.what === "another app's address";
  if (wantsDatabase && !stage.hasLocal) await workAndCrash(stage, version);
  if (mishap.what === "record") await spoilRecord(stage, mishap, version);
  else if (mishap.what === "no store") await askNoStore(stage, mishap.body, version);
  else if (mishap.what === "stranger") await stranger(stage, mishap, version);
  else await askAnother(stage, version);
}

/** Whether the replica certainly holds what this litestream sees as a backup. */
async function holdsBackup(stage: Stage, version: Version): Promise<boolean> {
  const readable = [...stage.writers].every(({ is03 }) => is03 === version.is03);
  return readable && stage.model.replicated > 0 && (await stage.s3.keys(stage.path)).length > 0;
}

/** So that there is a database, with rows that are nowhere else. */
async function workAndCrash(stage: Stage, version: Version): Promise<void> {
  const app = stage.start("app", version, {
    database: stage.database,
    bootSeconds: BOOT_SECONDS * stage.patience,
    work: { rows: 3, bytes: 10, churn: false, sync: false, checkpoint: "NONE" },
  });
  app.order("open");
  app.order("work");
  await app.until("wrote");
  app.kill("SIGKILL");
  await app.ended;
  const { content } = app.events;
  if (content === undefined) stage.fail(`a boot between two lives has failed: ${app.stderr.slice(-2000)}`);
  stage.hold(() => stage.model.booted(content, false));
  stage.readRecord();
}

type Failure = NonNullable<Outcome["error"]>;

/** A boot, and nothing after it. */
async function bootAlone(stage: Stage, version: Version, spec: object): Promise<Failure | undefined> {
  const app = stage.start("app", version, {
    database: stage.database,
    bootSeconds: BOOT_SECONDS * stage.patience,
    ...spec,
  });
  await app.until("boot");
  app.kill("SIGKILL");
  await app.ended;
  if (app.events.boot === undefined) stage.fail(`the app ended in its boot: ${app.stderr.slice(-2000)}`);
  return app.events.boot.error;
}

/** What comes of a replication without a boot; the local database stays in any case but `ok`. */
async function replicate(stage: Stage, version: Version, spec: object): Promise<string | undefined> {
  const app = stage.start("replicate", version, { seconds: PATIENT_SECONDS, ...spec });
  await app.ended;
  return answerOf(stage, app);
}

function answerOf(stage: Stage, app: Running): string | undefined {
  const { result } = app.events;
  if (result === undefined) stage.fail(`no answer: ${app.stderr.slice(-2000)}`);
  const { ok, reason } = (result.value ?? {}) as { ok?: boolean; reason?: string };
  return ok === true ? "ok" : (reason ?? result.error?.reason ?? result.error?.code);
}

function expect(stage: Stage, what: string, got: string | undefined, ...wanted: string[]): void {
  if (got === undefined || !wanted.includes(got))
    stage.fail(`${what}: ${wanted.join(" or ")} was to be expected, but it was ${got}`);
}

async function spoilRecord(
  stage: Stage,
  { is, mend }: Mishap & { what: "record" },
  version: Version,
): Promise<void> {
  const file = join(stage.folder, ".db.sqlite-litestream-s3");
  if (!existsSync(stage.dbpath) || !existsSync(file)) return;
  const record = readFileSync(file);
  // A mode keeps nobody away who is root.
  const how = is === "unreadable" && process.getuid?.() === 0 ? "a directory" : is;
  Report.count(stage.report.faults, `the record: ${how}`);
  if (how === "unreadable") chmodSync(file, 0);
  else rmSync(file);
  if (how === "a directory") mkdirSync(file);
  if (how === "empty") writeFileSync(file, "");
  if (how === "damaged") writeFileSync(file, record.subarray(0, record.length / 2));

  const error = await bootAlone(stage, version, {});
  const said = error?.reason ?? error?.code ?? "booted";
  const illegible = how === "unreadable" || how === "a directory";
  const mustRefuse = illegible || (await holdsBackup(stage, version));
  if (illegible) expect(stage, `the record is ${how}`, said, "FILE_SYSTEM");
  else if (mustRefuse) expect(stage, `the record is ${how}, and there is a backup`, said, "foreign-backup");
  if (mustRefuse) {
    const answer = await replicate(stage, version, {});
    expect(stage, `the record is ${how}`, answer, illegible ? "FILE_SYSTEM" : "foreign-backup");
  }
  if (!existsSync(stage.dbpath)) stage.fail(`the record is ${how}, and the database is gone`);
  if (!illegible && mend === "takeOver") return await takeOver(stage, version);
  rmSync(file, { recursive: true, force: true });
  writeFileSync(file, record);
}

/** Nothing is believed of what is no store, nothing is begun there, and nothing is lost. */
async function askNoStore(stage: Stage, body: string, version: Version): Promise<void> {
  Report.count(stage.report.faults, "an address that is no S3 store, and answers 200");
  const had = stage.hasLocal;
  const store = await startNoStore(body);
  try {
    const error = await bootAlone(stage, version, { port: store.port });
    // A boot on a disk that has its database needs no store.
    if (error !== undefined || !had)
      expect(stage, "the address is no store", error?.reason ?? error?.code ?? "booted", "unreachable");
    if (had) {
      const seconds = 5;
      const answer = await replicate(stage, version, { port: store.port, seconds });
      if (answer === "ok") stage.fail("the address is no store, but the answer is true");
      stage.justify(answer);
    }
    if (stage.hasLocal !== had)
      stage.fail(`a boot at what is no store, and the database is ${had ? "gone" : "there"}`);
  } finally {
    await store.stop();
  }
}

/** An app that forgets its restore(), or an image that carries a database. */
async function begin(stage: Stage, version: Version, rows: number, spec: object): Promise<Running> {
  const folder = mkdtempSync(join(stage.root, "stranger-"));
  const app = stage.start("app", version, {
    folder,
    acks: join(stage.root, "strangers-acks"),
    life: 2000 + stage.lives,
    database: stage.database,
    forgets: true,
    work: { rows, bytes: 10, churn: false, sync: false, checkpoint: "NONE" },
    ...spec,
  });
  for (const word of ["open", "work", "stop", "go"]) app.order(word);
  await app.ended;
  const isThere = existsSync(join(folder, "db.sqlite"));
  if (isThere === (answerOf(stage, app) === "ok"))
    stage.fail(
      `a stranger's database, which is ${isThere ? "there" : "gone"}: ${JSON.stringify(app.events.result)}`,
    );
  rmSync(folder, { recursive: true, force: true });
  return app;
}

/** Its database replaces this machine's backup only where it is told to. */
async function stranger(
  stage: Stage,
  { rows, takeOver }: Mishap & { what: "stranger" },
  version: Version,
): Promise<void> {
  if (!(await holdsBackup(stage, version))) return;
  // Where this machine has a database of its own, that would be another machine that writes: a rival.
  const goesAhead = takeOver && !stage.hasLocal;
  Report.count(stage.report.faults, goesAhead ? "a stranger takes over" : "a stranger's database");
  const end = {
    close: true,
    writer: "none",
    calls: 1,
    seconds: PATIENT_SECONDS * stage.patience,
    takeOver: goesAhead,
  };
  const app = await begin(stage, version, rows, { end });
  const answer = answerOf(stage, app);
  expect(stage, "a stranger's database", answer, goesAhead ? "ok" : "foreign-backup");
  if (goesAhead) {
    stage.writers.add(version);
    stage.model.replacedBy([{ life: 2000 + stage.lives, from: 1, to: rows }]);
  } else await look(stage, stage.model.replicated, "after a stranger's try");
}

/** The settings of this app name the place of another one's backup. */
async function askAnother(stage: Stage, version: Version): Promise<void> {
  if (!existsSync(stage.dbpath)) return;
  Report.count(stage.report.faults, "another app's address");
  const path = `${stage.path}-of-another-${stage.lives}`;
  const seconds = PATIENT_SECONDS * stage.patience;
  const end = { close: true, writer: "none", calls: 1, seconds };
  const other = await begin(stage, version, 5, { path, end });
  expect(stage, "another app's first backup", answerOf(stage, other), "ok");
  const error = await bootAlone(stage, version, { path });
  expect(stage, "a boot at another app's address", error?.reason ?? "booted", "foreign-backup");
  const answer = await replicate(stage, version, { path });
  expect(stage, "a proof at another app's address", answer, "foreign-backup");
  if (!existsSync(stage.dbpath)) stage.fail("the database is gone after a try at another app's address");
  const folder = mkdtempSync(join(stage.root, "another-"));
  const boot = stage.start("app", version, { path, folder, bootSeconds: PATIENT_SECONDS });
  boot.order("open");
  await boot.until("content");
  boot.kill("SIGKILL");
  await boot.ended;
  const rows = boot.events.content?.at(-1)?.to;
  if (rows !== 5) stage.fail(`another app's backup had 5 rows, and has ${rows}: ${boot.stderr.slice(-2000)}`);
  rmSync(folder, { recursive: true, force: true });
}
