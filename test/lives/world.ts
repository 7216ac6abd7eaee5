import {
  cpSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fillDisk, mountSmallDisk, NO_SMALL_DISK, remountDisk, unmountDisk } from "../support/disk.ts";
import { type Fault, type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { deadPid, processesWith } from "../support/processes.ts";
import { KEY, replicaUrl, type S3, TOKEN } from "../support/s3.ts";
import { secretIn } from "../support/secrets.ts";
import type { Continuous, FaultPlan, History, Life, Phase, SignalPlan } from "./history.ts";
import { Model, type Stretch } from "./model.ts";
import { Report } from "./report.ts";
import { type Events, type Outcome, Running, signalAll } from "./running.ts";

/** A litestream that the lives may have. */
export interface Version {
  readonly name: string;
  readonly file: string;
  readonly is03: boolean;
  /** It does not say when it has uploaded, and so can't replicate all the time. */
  readonly mute: boolean;
}

const BOOT_SECONDS = 15;
const PATIENT_SECONDS = 20;
const HURRIED_SECONDS = 2.5;
/** So much later than its deadline an answer may come, as design.md has it. */
const OVERTIME_MS = 250;
const SMALL_DISK_KIB = 64_000;
/** Longer than litestream may take for its last synchronisation (30 s) when its app is gone, or to be found hanging, and started again. */
const LAST_MS = 45_000;
const RECOVERY_MS = 150_000;
/** It can miss what is committed around its own checkpoints: README. */
const MISSES_COMMITS = /^0\.5\.(?:\d|1[0-6])$/;

/** What `litestream restore` by hand leaves when it is killed: none of the library's files, and so it stays. */
const HAND_MADE = "db.sqlite.tmp";

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
  const world = new World(history, versions, s3, proxy, root, path, report);
  try {
    report.histories += 1;
    for (const life of history.lives) if (!world.isOver) await world.live(life);
    await world.end();
  } finally {
    await proxy.stop();
    world.tearDown();
    rmSync(root, { recursive: true, force: true });
  }
}

/** What a phase of a life has to know. */
interface Now {
  readonly life: Life;
  readonly version: Version;
  readonly downgraded: boolean;
  /** Whether there was a database when the life began. */
  readonly hadLocal: boolean;
}

/** What became of the continuous replication of a life. */
interface Beside {
  /** Whether replicate() has begun. */
  started: boolean;
  /** Whether litestream was hit by a signal, or a fault, since all was known to be up. */
  hit: boolean;
  /** Whether a signal has come to a litestream of an app that was told that it replicates. */
  struck: boolean;
  /** What the last thing that went up may be good for. */
  mayDamage: boolean;
}

class World {
  readonly #history: History;
  readonly #versions: readonly Version[];
  readonly #s3: S3;
  readonly #proxy: FaultProxy;
  readonly #root: string;
  readonly #path: string;
  readonly #report: Report;
  readonly #disks: string[] = [];
  /** What the writers have recorded of their commits. */
  readonly #record: string;
  readonly #model: Model;
  #version: number;
  #lives = 0;
  #litter: string | undefined;
  #leak: string | undefined;
  readonly #company: Running[] = [];
  /** Signals of this phase that are to come later. */
  readonly #signals: NodeJS.Timeout[] = [];
  /** What another machine has brought into the replica in this life, so that this one is out of date. */
  #overtaken: Stretch[] | undefined;
  /** Litestreams that have written to the replica. */
  readonly #writers = new Set<Version>();
  #beside: Beside | undefined;
  /** An app has been killed, and its litestream may still be at its last synchronisation. */
  #orphan = false;
  /** What the replica holds is not said any more: two machines have written to it, in turns. */
  #mixed = false;

  constructor(
    history: History,
    versions: readonly Version[],
    s3: S3,
    proxy: FaultProxy,
    root: string,
    path: string,
    report: Report,
  ) {
    this.#history = history;
    this.#versions = versions;
    this.#s3 = s3;
    this.#proxy = proxy;
    this.#root = root;
    this.#path = path;
    this.#report = report;
    this.#record = join(root, "acks");
    this.#model = new Model(report);
    this.#version = Math.min(versions.length - 1, Math.floor(history.litestream * versions.length));
    writeFileSync(this.#record, "");
    this.#newDisk();
    if (history.database.start === "0 bytes") writeFileSync(this.#dbpath, "");
  }

  get #folder(): string {
    return this.#disks.at(-1) as string;
  }

  get #dbpath(): string {
    return join(this.#folder, "db.sqlite");
  }

  get #database() {
    const { start, pageSize, ...database } = this.#history.database;
    // A small disk is to be full when the harness says so.
    return {
      ...database,
      pageSize: this.#history.smallDisk ? 4096 : pageSize,
      megabytes: start === "500 MB" ? 500 : start === "1 MB" ? 1 : 0,
    };
  }

  /** A large database takes longer. */
  get #patience(): number {
    return this.#history.database.start === "500 MB" ? 10 : 1;
  }

  /** Whether litestream has worked on the local database before. */
  get #litestreamWasHere(): boolean {
    return existsSync(join(this.#folder, ".db.sqlite-litestream"));
  }

  /** Whether each machine has a small disk, on a machine that can make one. */
  get #small(): boolean {
    return this.#history.smallDisk && NO_SMALL_DISK === undefined;
  }

  get #hasLocal(): boolean {
    return existsSync(this.#dbpath) || existsSync(`${this.#dbpath}.removing`);
  }

  #newDisk(): void {
    const folder = join(this.#root, `disk-${this.#disks.length}`);
    mkdirSync(folder);
    if (this.#history.smallDisk) {
      if (NO_SMALL_DISK === undefined) mountSmallDisk(folder, SMALL_DISK_KIB);
      else Report.count(this.#report.notRun, `a full disk: ${NO_SMALL_DISK}`);
    }
    this.#disks.push(folder);
  }

  get isOver(): boolean {
    return this.#mixed;
  }

  tearDown(): void {
    signalAll(this.#root, "SIGKILL");
    if (this.#small) {
      for (const disk of this.#disks) unmountDisk(disk);
    }
  }

  /** Holds what has come about against the model. */
  #hold(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  #readRecord(): void {
    this.#model.read(readFileSync(this.#record, "utf8"), this.#lives);
  }

  #fail(what: string): never {
    const versions = this.#versions[this.#version]?.name;
    throw new Error(`life ${this.#lives}, litestream ${versions}: ${what}`);
  }

  async live(life: Life): Promise<void> {
    this.#lives += 1;
    this.#report.lives += 1;
    const before = this.#version;
    this.#version = Math.max(0, Math.min(this.#versions.length - 1, before + life.litestream));
    const version = this.#versions[this.#version] as Version;
    const downgraded = [...this.#writers].some(
      (writer) => this.#versions.indexOf(writer) > this.#version && !(writer.is03 && version.is03),
    );
    Report.count(this.#report.litestreams, version.name);

    if (life.disk === "empty" && !this.#model.broken && this.#lives > 1) await this.#changeMachine();
    if (downgraded && !this.#hasLocal) {
      await this.#bootDowngraded(version);
      this.#version = before; // the operator has seen the warning
      return;
    }
    if (!this.#hasLocal && life.litter) this.#plantLitter();
    const now = { life, version, downgraded, hadLocal: this.#hasLocal };
    const app = this.#startApp(now);
    try {
      (await this.#boot(now, app)) &&
        (await this.#work(now, app)) &&
        (await this.#replicateBeside(now, app)) &&
        (await this.#end(now, app));
    } finally {
      this.#endPhase();
      await this.#stopCompany();
      app.kill("SIGKILL");
      await app.ended;
      if (app.killed) Report.count(this.#report.kills, app.killed);
      const leak = secretIn(app.stderr) ?? this.#leak;
      if (leak !== undefined) this.#fail(`the ${leak} is in the output of the app, or in an argument list`);
    }
    if (this.#beside !== undefined) await this.#orphaned(now, app, this.#beside);
    this.#beside = undefined;
    if (this.#mixed) return await this.#checkDisk();
    if (this.#overtaken !== undefined) await this.#giveUp(version, this.#overtaken);
  }

  #startApp({ life, version }: Now): Running {
    const { work, boot, killStep } = life;
    const end = life.end.how === "shutdown" ? life.end : undefined;
    const inVain = isLasting(end?.fault) || end?.writer !== "none" || end?.disk !== undefined;
    return this.#start("app", version, {
      database: this.#database,
      bootSeconds: isLasting(boot.fault) ? HURRIED_SECONDS : BOOT_SECONDS * this.#patience,
      syncSeconds: PATIENT_SECONDS * this.#patience,
      small: this.#small,
      work: { ...work, rows: work.by === "app" ? this.#rowsOf(life) : 0 },
      continuous: life.continuous && {
        ...life.continuous,
        seconds: isLasting(life.continuous.fault) ? HURRIED_SECONDS : PATIENT_SECONDS * this.#patience,
      },
      end: end && {
        ...end,
        seconds: inVain ? HURRIED_SECONDS : PATIENT_SECONDS * this.#patience,
        close: end.close && end.writer !== "same",
      },
      killStep,
    });
  }

  /** litestream has to change to WAL, or to checkpoint a file that looks old or a long -wal, and can't while somebody reads. */
  #readerIsInTheWay({ work }: Life): boolean {
    const { journal, pageSize } = this.#history.database;
    return (
      journal === "delete" || pageSize === 512 || work.clockJump !== 0 || work.rows * work.bytes > 500_000
    );
  }

  #rowsOf({ work }: Life): number {
    return this.#small ? Math.min(work.rows, 20) : work.rows;
  }

  /** @returns whether the app goes on to the next phase */
  async #boot({ life, hadLocal }: Now, app: Running): Promise<boolean> {
    const empty = this.#small && life.boot.disk === "full" && !hadLocal ? fillDisk(this.#folder) : undefined;
    if (empty) Report.count(this.#report.faults, "full disk at boot");
    await app.until("booting");
    this.#beginPhase(life.boot, app, "boot");
    await app.until("boot");
    this.#endPhase();
    empty?.();
    app.order("open");
    const { boot } = app.events;
    if (boot?.error) {
      await this.#bootFailed(life, boot.error, app);
      return false;
    }
    await app.until("content");
    const { content } = app.events;
    if (content === undefined) {
      await this.#appGone(app, "boot", hadLocal);
      return false;
    }
    this.#orphan = false;
    this.#report.boots += 1;
    this.#hold(() => this.#model.booted(content, hadLocal));
    return true;
  }

  /** @returns whether the app goes on to the next phase */
  async #work({ life, version, downgraded }: Now, app: Running): Promise<boolean> {
    const { work } = life;
    const rows = this.#rowsOf(life);
    app.order("work");
    if (work.by === "other") {
      const other = this.#start("writer", version, { work: { ...work, rows } });
      this.#company.push(other);
      await other.ended;
    }
    await app.until("wrote");
    this.#readRecord();
    const { synced } = app.events;
    if ((synced?.value as { ok: boolean } | undefined)?.ok) {
      // What came after it is not in it; that much was acknowledged before.
      this.#model.proven(Math.max(this.#model.replicated, this.#model.acked - rows));
      this.#writers.add(version);
    } else if (synced && !this.#small && !downgraded) {
      this.#fail(`a healthy store, but no proof: ${JSON.stringify(synced)}`);
    }
    if (app.ended_ !== undefined) {
      await this.#appGone(app, "work", true);
      return false;
    }
    this.#keepLitter();
    if (work.clockJump !== 0) this.#jumpClock(work.clockJump);
    if (life.vanish !== undefined) await this.#vanish(life.vanish);
    if (life.rival !== undefined && !downgraded) await this.#rival(life.rival, version);
    return true;
  }

  /** Where this machine has a record of the replica that its litestream can compare. */
  #knowsReplica(version: Version): boolean {
    try {
      const record = readFileSync(join(this.#folder, ".db.sqlite-litestream-s3"), "utf8");
      return JSON.parse(record).replica.startsWith(version.is03 ? "0.3 " : "0.5 ");
    } catch {
      return false;
    }
  }

  /** Another machine has its whole life between two steps of this one's. */
  async #rival(rows: number, version: Version): Promise<void> {
    if (this.#model.broken || !this.#knowsReplica(version)) return;
    const folder = join(this.#root, `rival-${this.#lives}`);
    mkdirSync(folder);
    const life = 1000 + this.#lives;
    const rival = this.#start("app", version, {
      life,
      dbpath: join(folder, "db.sqlite"),
      acks: join(this.#root, "rival-acks"),
      folder,
      database: this.#database,
      bootSeconds: BOOT_SECONDS,
      work: { rows, bytes: 10, churn: false, sync: false, checkpoint: "NONE" },
      end: { close: true, writer: "none", calls: 1, seconds: PATIENT_SECONDS },
    });
    for (const word of ["open", "work", "stop", "go"]) rival.order(word);
    await rival.ended;
    const { content, result } = rival.events;
    if (!(result?.value as { ok: boolean } | undefined)?.ok || content === undefined)
      this.#fail(
        `the other machine's life went wrong: ${JSON.stringify(rival.events)} ${rival.stderr.slice(-2000)}`,
      );
    Report.count(this.#report.faults, "another machine writes to the replica");
    const from = (content.at(-1)?.to ?? 0) + 1;
    this.#overtaken = [...content, { life, from, to: from + rows - 1 }];
  }

  /**
   * The life in which another machine has written is over. Its rows, acknowledged, are in the newest backup; this machine's are on its
   * disk, and no boot there goes on as if nothing were. Then this machine is given up.
   */
  async #giveUp(version: Version, content: Stretch[]): Promise<void> {
    this.#overtaken = undefined;
    if (!this.#hasLocal) {
      this.#report.localFilesWronglyDeleted += 1;
      this.#fail("another machine has written to the replica, and the local database is gone");
    }
    const boot = this.#start("app", version, { database: this.#database, bootSeconds: BOOT_SECONDS });
    await boot.until("boot");
    const { reason } = boot.events.boot?.error ?? {};
    boot.kill("SIGKILL");
    await boot.ended;
    if (reason !== "replica-moved")
      this.#fail(
        `another machine has written to the replica, but the boot said ${JSON.stringify(boot.events.boot)}`,
      );
    await this.#changeMachine();
    this.#model.replacedBy(content);
  }

  async #end({ life, version, downgraded }: Now, app: Running): Promise<void> {
    const { end } = life;
    if (end.how === "crash") {
      app.kill("SIGKILL");
      app.killed = "app, at work";
      return await this.#appGone(app, "crash", true);
    }
    if (end.reader) this.#company.push(await this.#start("reader", version, {}).ready());
    if (end.writer === "other") {
      const { everyMs, checkpoints } = end;
      const work = { ...life.work, rows: 1 };
      const writer = await this.#start("writer", version, { work, everyMs, checkpoints }).ready();
      this.#company.push(writer);
      setTimeout(() => writer.order("stop"), end.writerMs);
    }
    app.order("stop");
    await app.until("closed");
    const mend = this.#small ? this.#spoilDisk(end) : undefined;
    const { broken } = this.#model;
    const mayDamage = !version.is03 && (end.writer !== "none" || this.#litestreamWasHere);
    app.order("go");
    await app.until("stopping");
    this.#beginPhase(end, app, "shutdown");
    await app.until("result");
    this.#endPhase();
    const { result, others = [], overtimeMs = 0 } = app.events;
    await app.ended;
    await this.#stopCompany();
    mend?.();
    // What 0.5 uploads after a gap, before the whole copy: docs/durability.md.
    const proven = (result?.value as { ok: boolean } | undefined)?.ok === true;
    if (!proven && mayDamage) this.#model.damaged();
    if (result === undefined) return await this.#appGone(app, "shutdown", true);
    this.#readRecord();
    if (overtimeMs > OVERTIME_MS) {
      this.#report.deadlinesMissed += 1;
      this.#fail(`the answer came ${Math.round(overtimeMs)} ms after its deadline`);
    }
    const troubled =
      end.fault !== undefined ||
      end.signal !== undefined ||
      end.disk !== undefined ||
      end.writer !== "none" ||
      (end.reader && this.#readerIsInTheWay(life)) ||
      // Where the newest objects have gone, litestream can't mend it.
      (broken && !version.is03) ||
      this.#small ||
      downgraded ||
      this.#overtaken !== undefined;
    const keeps = end.stop === "keep" && this.#beside?.started === true;
    this.#answered(result, others, version, troubled, keeps);
  }

  /** The others that have the database open end with the machine. */
  async #stopCompany(): Promise<void> {
    for (const other of this.#company) other.kill("SIGKILL");
    await Promise.all(this.#company.splice(0).map((other) => other.ended));
  }

  /** The last two lives: nothing happens to them, and so both must succeed. */
  async end(): Promise<void> {
    const quiet = { fault: undefined, signal: undefined, disk: undefined };
    const plain: Life = {
      disk: "same",
      litter: false,
      boot: quiet,
      work: { rows: 3, bytes: 100, churn: false, by: "app", sync: false, checkpoint: "NONE", clockJump: 0 },
      vanish: undefined,
      rival: undefined,
      continuous: undefined,
      killStep: undefined,
      end: {
        how: "shutdown",
        close: true,
        reader: false,
        writer: "none",
        everyMs: 1,
        checkpoints: false,
        writerMs: 1,
        calls: 1,
        stop: undefined,
        ...quiet,
      },
      litestream: 0,
    };
    const newest = Math.max(
      this.#version,
      ...[...this.#writers].map((writer) => this.#versions.indexOf(writer)),
    );
    this.#version = newest;
    if (this.isOver) return;
    await this.live(plain);
    await this.live({ ...plain, disk: "empty" });
    for (let tries = 0; processesWith(this.#root).length > 0; tries += 1) {
      if (tries > 500) this.#fail(`processes are left over: ${processesWith(this.#root).join("; ")}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** From the call of replicate() to the last row beside it, and what is to follow; @returns whether the app goes on to its end */
  async #replicateBeside({ life, version, downgraded }: Now, app: Running): Promise<boolean> {
    const plan = life.continuous;
    if (plan === undefined || downgraded) return true;
    const { acked, broken } = this.#model;
    const mayDamage = !version.is03 && (this.#litestreamWasHere || broken);
    const beside: Beside = { started: false, hit: plan.fault !== undefined, struck: false, mayDamage };
    this.#beside = beside;
    this.#beginPhase(plan, app, "replicating");
    app.order("replicate");
    await app.until("replicating");
    const { replicating, startOvertimeMs = 0 } = app.events;
    if (replicating?.value !== undefined) {
      beside.started = true;
      beside.mayDamage = MISSES_COMMITS.test(version.name);
      this.#writers.add(version);
      if (this.#overtaken !== undefined)
        this.#fail("another machine has written to the replica, but it replicates");
      // Where objects have vanished, only a shutdown looks for that.
      if (!broken || version.is03) this.#model.proven(Math.max(acked, this.#model.replicated));
      if (plan.strike) {
        this.#signaller(
          { who: "litestream", signal: plan.strike, atRequest: 0, laterMs: 0 },
          app,
          "replicating",
        )();
      }
      if (plan.look && !this.#model.broken && !beside.mayDamage)
        await this.#look(acked, "once it replicates");
    }
    await app.until("beside");
    this.#endPhase();
    this.#readRecord();
    if (app.ended_ !== undefined) {
      await this.#appGone(app, "replicating", true);
      return false;
    }
    if (replicating?.error !== undefined) {
      this.#refused(replicating.error, version, plan, startOvertimeMs);
      return true;
    }
    Report.count(this.#report.continuous, "begun");
    if (plan.settle || plan.rival) await this.#settle(app, beside, version);
    if (app.ended_ !== undefined) {
      await this.#appGone(app, "replicating", true);
      return false;
    }
    if (plan.rival && !this.#model.broken && this.#knowsReplica(version)) {
      await this.#rival(plan.rival.rows, version);
      if (plan.rival.more > 0) {
        await this.#more(plan.rival.more, app);
        this.#mixed = true;
      }
      // They begin while its litestream still runs.
      if (life.end.how === "shutdown" && life.end.writer !== "none") this.#mixed = true;
    }
    if (plan.kill === undefined) return true;
    // What is not up yet when it is killed.
    if (this.#overtaken === undefined) await this.#more(plan.rows, app);
    if (plan.kill === "both") {
      beside.hit = true;
      Report.count(
        this.#report.kills,
        "litestream, replicating: SIGKILL",
        signalAll(this.#folder, "SIGKILL"),
      );
    }
    app.kill("SIGKILL");
    app.killed = plan.kill === "both" ? "app, replicating, after its litestream" : "app, replicating";
    await this.#appGone(app, "replicating", true);
    return false;
  }

  /** Commits so many rows more. */
  async #more(rows: number, app: Running): Promise<void> {
    app.order(`more ${rows}`);
    await app.until("more");
    this.#readRecord();
  }

  /** replicate() has rejected, as it must, or may. */
  #refused(
    error: NonNullable<Outcome["error"]>,
    version: Version,
    plan: Continuous,
    overtimeMs: number,
  ): void {
    Report.count(this.#report.continuous, `refused: ${error.reason ?? error.code}`);
    // It begins to end what it has started at its deadline.
    if (overtimeMs > 2 * OVERTIME_MS) {
      this.#report.deadlinesMissed += 1;
      this.#fail(`replicate() rejected ${Math.round(overtimeMs)} ms after its deadline`);
    }
    if (this.#model.broken || this.#small || plan.fault !== undefined || plan.signal !== undefined) return;
    const expected =
      this.#overtaken !== undefined
        ? error.reason === "replica-moved"
        : version.mute && error.code === "LITESTREAM_UNSUPPORTED";
    if (!expected) this.#fail(`replicate() rejected: ${JSON.stringify(error)}`);
  }

  /** All is up in the end, it says so, and it is so. */
  async #settle(app: Running, beside: Beside, version: Version): Promise<void> {
    app.order("settle");
    await inTime(app.until("settled"), RECOVERY_MS, () =>
      this.#fail(`it does not say that all is up: ${app.stderr.slice(-3000)}`),
    );
    const { settled } = app.events;
    this.#readRecord();
    if (settled === undefined) return;
    const { heard, restarts } = settled;
    const inTurn = heard.every((word, i) => word.startsWith(i % 2 === 0 ? "failing" : "recovered"));
    if (!inTurn || heard.length % 2 === 1) this.#fail(`it recovered, and said ${JSON.stringify(heard)}`);
    if (beside.struck && (restarts === 0 || heard.length === 0))
      this.#fail(`litestream was killed, and all that it said is ${JSON.stringify(settled)}`);
    if (restarts > 0) Report.count(this.#report.continuous, "started again", restarts);
    if (MISSES_COMMITS.test(version.name) || this.#model.broken) return;
    const { acked } = this.#model;
    for (const end = Date.now() + LAST_MS; ; ) {
      try {
        await this.#look(acked, "once all was said to be up");
        break;
      } catch (error) {
        // It may have said that of what it read before the last commit.
        if (Date.now() > end) throw error;
      }
    }
    this.#model.proven(acked);
    beside.hit = false;
    beside.struck = false;
    Report.count(this.#report.continuous, "all up");
  }

  /** What another machine gets from the replica just now. */
  async #look(required: number, when: string): Promise<void> {
    const folder = mkdtempSync(join(this.#root, "look-"));
    const app = this.#start("app", this.#versions[this.#version] as Version, {
      dbpath: join(folder, "db.sqlite"),
      folder,
      port: this.#s3.port,
      bootSeconds: PATIENT_SECONDS,
    });
    app.order("open");
    await app.until("content");
    app.kill("SIGKILL");
    await app.ended;
    const { boot, content } = app.events;
    if (content === undefined)
      this.#fail(`${when} another machine can't restore: ${JSON.stringify(boot)} ${app.stderr.slice(-2000)}`);
    this.#readRecord();
    this.#hold(() => this.#model.check(content, required, `${when}, on another machine,`));
    rmSync(folder, { recursive: true });
  }

  /** The life is over. Where its app was killed, its litestream ends by itself, after it has brought up what there was. */
  async #orphaned({ life, version }: Now, app: Running, beside: Beside): Promise<void> {
    const plan = life.continuous as Continuous;
    if (app.killed !== undefined && this.#hasLocal && (beside.mayDamage || (beside.hit && !version.is03)))
      this.#model.damaged();
    if (
      app.killed !== undefined &&
      plan.hurry &&
      !this.#mixed &&
      this.#overtaken === undefined &&
      !beside.hit
    ) {
      this.#orphan = processesWith(this.#folder).length > 0;
      if (this.#orphan) Report.count(this.#report.continuous, "a boot beside the litestream of a killed app");
      return;
    }
    await this.#noProcessIn(this.#folder, LAST_MS);
    const isSure = beside.started && !beside.hit && !beside.mayDamage && !this.#model.broken;
    if (app.killed?.startsWith("app, replicating") && isSure && this.#overtaken === undefined) {
      await this.#look(
        this.#model.acked,
        "after the last synchronisation of a litestream whose app was killed",
      );
      this.#model.proven();
      Report.count(this.#report.continuous, "brought up what a killed app had committed");
    }
  }

  async #noProcessIn(folder: string, withinMs: number): Promise<void> {
    for (const end = Date.now() + withinMs; processesWith(folder).length > 0; ) {
      if (Date.now() > end) this.#fail(`processes are left over: ${processesWith(folder).join("; ")}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** The machine is gone with its disk: what it alone had is lost, as promised; it must have had it, though. */
  async #changeMachine(): Promise<void> {
    // And all that ran there.
    signalAll(this.#folder, "SIGKILL");
    await this.#noProcessIn(this.#folder, LAST_MS);
    this.#orphan = false;
    await this.#checkDisk();
    this.#newDisk();
    this.#model.diskLost();
  }

  async #checkDisk(): Promise<void> {
    if (!existsSync(this.#dbpath) || this.#model.acked === 0) return;
    const check = this.#start("check", this.#versions[this.#version] as Version, {});
    await check.ended;
    const { content, damaged } = check.events as Events & { damaged?: string };
    if (content === undefined) this.#fail(`the local database can't be read: ${damaged ?? check.stderr}`);
    this.#hold(() => this.#model.check(content, this.#model.acked, "on the old disk"));
  }

  #answered(result: Outcome, others: Outcome[], version: Version, troubled: boolean, keeps: boolean): void {
    const { error } = result;
    const value = result.value as { ok: boolean; reason?: string; message?: string } | undefined;
    Report.count(this.#report.answers, error?.code ?? (value?.ok ? "true" : `false: ${value?.reason}`));
    const local = readdirSync(this.#folder).filter(
      (name) => name.includes("db.sqlite") && name !== HAND_MADE,
    );
    // 0.5 has written its own over the other's, under the same names: README.
    const unseen = this.#mixed && !version.is03;
    if (this.#mixed)
      Report.count(
        this.#report.continuous,
        `two machines in turns, and then: ${value?.ok ? "true" : value?.reason}`,
      );
    if (this.#overtaken !== undefined && value?.ok && !unseen)
      this.#fail(`another machine has written to the replica, but the answer was ${JSON.stringify(result)}`);
    if (value?.ok) {
      if (local.length > 0 && !keeps) this.#fail(`true, but ${local.join(", ")} is left`);
      if (keeps && !existsSync(this.#dbpath))
        this.#fail("true, but the local database, which was to stay, is gone");
      this.#model.proven();
      this.#writers.add(version);
    } else {
      if (!this.#hasLocal) {
        this.#report.localFilesWronglyDeleted += 1;
        this.#fail(`not true, but the local database is gone: ${JSON.stringify(result)}`);
      }
      if (!troubled) this.#fail(`nothing was wrong, but no proof: ${JSON.stringify(result)}`);
      if (error && error.code !== "LITESTREAM_UNSUPPORTED")
        this.#fail(`it rejected: ${JSON.stringify(error)}`);
      this.#writers.add(version); // perhaps
    }
    const agrees = others.every(
      (other) =>
        (other.value as { ok: boolean } | undefined)?.ok === value?.ok ||
        other.error?.code === "DATABASE_NOT_FOUND",
    );
    if (!agrees && value?.ok === true)
      this.#fail(`two calls, two answers: ${JSON.stringify([result, ...others])}`);
  }

  /** The app has ended without its answer: by a kill of ours, or else it is a failure. */
  async #appGone(app: Running, when: string, hadLocal: boolean): Promise<void> {
    const { signal, code } = await app.ended;
    if (signal === null)
      this.#fail(`the app ended with exit code ${code} (${when}): ${app.stderr.slice(-3000)}`);
    if (app.killed === undefined) app.killed = `app, ${when}: at a step of its own`;
    if (when === "boot") {
      if (hadLocal && !this.#hasLocal) this.#fail("the boot has removed the local database");
      return;
    }
    this.#readRecord();
    this.#writers.add(this.#versions[this.#version] as Version);
    // Killed after the removal: then the replica must have everything.
    if (!this.#hasLocal) {
      this.#model.proven();
    }
  }

  async #bootFailed(life: Life, error: NonNullable<Outcome["error"]>, app: Running): Promise<void> {
    await app.ended;
    Report.count(this.#report.bootErrors, error.reason ?? error.code);
    const expected =
      life.boot.fault !== undefined ||
      life.boot.signal !== undefined ||
      (this.#small && life.boot.disk !== undefined);
    if (!expected && !this.#model.broken)
      this.#fail(`nothing was wrong, but the boot failed: ${JSON.stringify(error)}`);
    // It waits for the litestream of the app before, which has the same trouble.
    if (this.#orphan && life.boot.fault !== undefined && error.reason === "timeout") return;
    if (this.#hasLocal) this.#fail(`a failed boot, but there is a database: ${JSON.stringify(error)}`);
  }

  /** An older litestream after a newer one, on an empty disk: it says so, or fails, or has every row. */
  async #bootDowngraded(version: Version): Promise<void> {
    Report.count(this.#report.faults, "downgrade of litestream, empty disk");
    const app = this.#start("app", version, {
      database: this.#history.database,
      bootSeconds: BOOT_SECONDS,
    });
    app.order("open");
    await app.until("content");
    const warned = /cannot see backups made by litestream/.test(app.stderr);
    app.order("stop");
    await app.ended;
    const { boot, content } = app.events;
    if (boot === undefined) this.#fail(`the app ended in its boot: ${app.stderr.slice(-3000)}`);
    const rows = content?.at(-1)?.to ?? 0;
    if (boot.error === undefined && rows < this.#model.replicated && !warned) {
      this.#fail(`after a downgrade it starts in silence with ${rows} of ${this.#model.replicated} rows`);
    }
    this.#newDisk();
  }

  #spoilDisk(shutdown: Life["end"] & { how: "shutdown" }): (() => void) | undefined {
    if (shutdown.disk === "full") {
      Report.count(this.#report.faults, "full disk at shutdown");
      return fillDisk(this.#folder);
    }
    // A file system that is written to can't be made read-only.
    if (shutdown.disk !== "read-only" || shutdown.reader || shutdown.writer !== "none" || !shutdown.close)
      return undefined;
    if (!remountDisk(this.#folder, "ro")) return undefined;
    Report.count(this.#report.faults, "read-only folder at shutdown");
    return () => void remountDisk(this.#folder, "rw");
  }

  #keepLitter(): void {
    const to = join(this.#root, "litter");
    rmSync(to, { recursive: true, force: true });
    mkdirSync(to);
    for (const name of ["db.sqlite-wal", "db.sqlite-shm", ".db.sqlite-litestream"]) {
      const from = join(this.#folder, name);
      if (existsSync(from)) cpSync(from, join(to, name), { recursive: true });
    }
    this.#litter = to;
  }

  #plantLitter(): void {
    Report.count(this.#report.faults, "leftovers of an older life");
    if (this.#litter) cpSync(this.#litter, this.#folder, { recursive: true });
    const abandoned = `db.sqlite.restore-${deadPid()}-0123abcd`;
    for (const name of [HAND_MADE, abandoned, `${abandoned}.tmp-wal`, "db.sqlite-journal"]) {
      writeFileSync(join(this.#folder, name), "left over");
    }
  }

  #jumpClock(days: number): void {
    Report.count(this.#report.faults, "the clock jumps by a day");
    const time = Date.now() / 1000 + days * 86_400;
    for (const name of readdirSync(this.#folder)) lutimesSync(join(this.#folder, name), time, time);
  }

  async #vanish(share: number): Promise<void> {
    const keys = await this.#s3.keys(this.#path);
    const key = keys[Math.floor(share * keys.length)];
    if (key === undefined) return;
    await this.#s3.expire(key);
    Report.count(this.#report.faults, "an object vanishes from the bucket");
    this.#model.damaged();
  }

  /** Arms the faults and signals of a phase. */
  #beginPhase(phase: Phase, app: Running, name: "boot" | "replicating" | "shutdown"): void {
    const { fault, signal } = phase;
    let requests = 0;
    const atRequest = signal && this.#signaller(signal, app, name);
    if (signal?.atRequest === 0) atRequest?.();
    const plan = fault && this.#planned(fault);
    this.#proxy.fault = (request) => {
      requests += 1;
      if (requests === 1) this.#leak ??= secretIn(processesWith(this.#root).join("\n"));
      if (requests === signal?.atRequest) atRequest?.();
      return plan?.(request);
    };
  }

  /** Nothing happens to what comes after the phase. */
  #endPhase(): void {
    this.#proxy.fault = () => undefined;
    for (const signal of this.#signals.splice(0)) clearTimeout(signal);
  }

  #planned({ fault, to, after, count }: FaultPlan): (request: IncomingMessage) => Fault | undefined {
    let seen = 0;
    return ({ method }) => {
      if (to !== "any" && method !== to) return undefined;
      seen += 1;
      if (seen <= after || (count !== "all" && seen > after + count)) return undefined;
      Report.count(
        this.#report.faults,
        `S3: ${typeof fault === "string" ? fault : "status" in fault ? fault.status : "slow"}`,
      );
      return fault;
    };
  }

  #signaller({ who, signal, laterMs }: SignalPlan, app: Running, phase: string): () => void {
    const send = () => {
      if (who !== "app") {
        const name = who === "both" ? "SIGKILL" : signal;
        const hits = signalAll(this.#folder, name);
        Report.count(this.#report.kills, `litestream, ${phase}: ${name}`, hits);
        if (this.#beside && hits > 0) {
          this.#beside.hit = true;
          this.#beside.struck = app.events.replicating !== undefined;
        }
      }
      if (who !== "litestream" && app.kill("SIGKILL"))
        app.killed = who === "both" ? `app, ${phase}, after its litestream` : `app, ${phase}`;
    };
    return laterMs === 0 ? send : () => void this.#signals.push(setTimeout(send, laterMs));
  }

  #start(role: string, version: Version, spec: Record<string, unknown>): Running {
    const settings = {
      key: KEY,
      token: TOKEN,
      s3: "",
      folder: this.#folder,
      // Every other life keeps no history: what is older goes at its end.
      historyHours: this.#lives % 2 === 0 ? 0 : 24,
    };
    const {
      killStep,
      folder = this.#folder,
      port = this.#proxy.port,
      ...rest
    } = spec as { killStep?: Life["killStep"]; folder?: string; port?: number };
    settings.folder = folder;
    settings.s3 = replicaUrl(port, this.#path);
    return new Running(
      {
        role,
        dbpath: this.#dbpath,
        acks: this.#record,
        life: this.#lives,
        settings,
        litestream: version.file,
        ...rest,
      },
      killStep && `${killStep.n}:${killStep.moment}`,
    );
  }
}

/** No answer comes for as long as the phase lasts. */
const isLasting = (plan: FaultPlan | undefined) =>
  plan !== undefined && (plan.count === "all" || plan.fault === "stall" || plan.fault === "stall-body");

async function inTime(promise: Promise<void>, ms: number, late: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<true>((resolve) => {
    timer = setTimeout(() => resolve(true), ms);
  });
  const isLate = await Promise.race([promise, limit]);
  clearTimeout(timer);
  if (isLate) late();
}
