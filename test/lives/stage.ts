import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mountSmallDisk, NO_SMALL_DISK, unmountDisk } from "../support/disk.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";
import { processesWith } from "../support/processes.ts";
import { KEY, type S3, TOKEN } from "../support/s3.ts";
import type { History, Life } from "./history.ts";
import { Model, type Stretch } from "./model.ts";
import { placeAs, SPELLINGS } from "./places.ts";
import { Report } from "./report.ts";
import { type Companion, Running, type Spec, signalAll } from "./running.ts";

/** A litestream that the lives may have. */
export interface Version {
  readonly name: string;
  readonly file: string;
  readonly is03: boolean;
  /** It does not say when it has uploaded, and so can't replicate all the time. */
  readonly mute: boolean;
}

export const BOOT_SECONDS = 15;
export const PATIENT_SECONDS = 20;
export const HURRIED_SECONDS = 2.5;
/** So much later than its deadline an answer may come, as design.md has it. */
export const OVERTIME_MS = 250;
/** Longer than litestream may take for its last synchronisation (30 s) when its app is gone, or to be found hanging, and started again. */
export const LAST_MS = 45_000;
const SMALL_DISK_KIB = 64_000;
/** It can miss what is committed around its own checkpoints: README. */
export const MISSES_COMMITS = /^0\.5\.(?:\d|1[0-6])$/;

/** What `litestream restore` by hand leaves when it is killed: none of the library's files, and so it stays. */
export const HAND_MADE = "db.sqlite.tmp";

/** What a phase of a life has to know. */
export interface Now {
  readonly life: Life;
  readonly version: Version;
  readonly downgraded: boolean;
  /** Whether there was a database when the life began. */
  readonly hadLocal: boolean;
}

/** What became of the continuous replication of a life. */
export interface Beside {
  /** Whether replicate() has begun. */
  started: boolean;
  /** Whether litestream was hit by a signal, or a fault, since all was known to be up. */
  hit: boolean;
  /** Whether a signal has come to a litestream of an app that was told that it replicates. */
  struck: boolean;
  /** What the last thing that went up may be good for. */
  mayDamage: boolean;
}

/** Where a history is played: its machines, its replica, its processes, and the model that all of them are held against. */
export class Stage {
  readonly history: History;
  readonly versions: readonly Version[];
  readonly s3: S3;
  readonly proxy: FaultProxy;
  readonly root: string;
  readonly path: string;
  readonly report: Report;
  readonly disks: string[] = [];
  /** What the writers have recorded of their commits. */
  readonly record: string;
  readonly model: Model;
  version: number;
  lives = 0;
  litter: string | undefined;
  leak: string | undefined;
  /** The other processes that have the database open. */
  readonly company: Companion[] = [];
  /** Signals of this phase that are to come later. */
  readonly signals: NodeJS.Timeout[] = [];
  /** What another machine has brought into the replica in this life, so that this one is out of date. */
  overtaken: Stretch[] | undefined;
  /** Litestreams that have written to the replica. */
  readonly writers = new Set<Version>();
  beside: Beside | undefined;
  /** An app has been killed, and its litestream may still be at its last synchronisation. */
  orphan = false;
  /** A litestream by hand has written to the replica in this life. */
  byHand = false;
  /** A litestream by hand has worked in the folder of the library's own while that uploaded in vain: neither tells whose files are there. */
  footprints = false;
  /** What the replica holds is not said any more: two machines have written to it, in turns. */
  mixed = false;

  constructor(
    history: History,
    versions: readonly Version[],
    s3: S3,
    proxy: FaultProxy,
    root: string,
    path: string,
    report: Report,
  ) {
    this.history = history;
    this.versions = versions;
    this.s3 = s3;
    this.proxy = proxy;
    this.root = root;
    this.path = path;
    this.report = report;
    this.record = join(root, "acks");
    this.model = new Model(report);
    this.version = Math.min(versions.length - 1, Math.floor(history.litestream * versions.length));
    writeFileSync(this.record, "");
    this.newDisk();
    if (history.database.start === "0 bytes") writeFileSync(this.dbpath, "");
  }

  get folder(): string {
    return this.disks.at(-1) as string;
  }

  get dbpath(): string {
    return join(this.folder, "db.sqlite");
  }

  get database() {
    const { start, pageSize, ...database } = this.history.database;
    // A small disk is to be full when the harness says so.
    return {
      ...database,
      pageSize: this.history.smallDisk ? 4096 : pageSize,
      megabytes: start === "500 MB" ? 500 : start === "1 MB" ? 1 : 0,
    };
  }

  /** A large database takes longer. */
  get patience(): number {
    return this.history.database.start === "500 MB" ? 10 : 1;
  }

  /** Whether litestream has worked on the local database before. */
  get litestreamWasHere(): boolean {
    return existsSync(join(this.folder, ".db.sqlite-litestream"));
  }

  /** Whether each machine has a small disk, on a machine that can make one. */
  get small(): boolean {
    return this.history.smallDisk && NO_SMALL_DISK === undefined;
  }

  get hasLocal(): boolean {
    return existsSync(this.dbpath) || existsSync(`${this.dbpath}.removing`);
  }

  newDisk(): void {
    const folder = join(this.root, `disk-${this.disks.length}`);
    mkdirSync(folder);
    if (this.history.smallDisk) {
      if (NO_SMALL_DISK === undefined) mountSmallDisk(folder, SMALL_DISK_KIB);
      else Report.count(this.report.notRun, `a full disk: ${NO_SMALL_DISK}`);
    }
    this.disks.push(folder);
  }

  get isOver(): boolean {
    return this.mixed;
  }

  tearDown(): void {
    signalAll(this.root, "SIGKILL");
    if (this.small) {
      for (const disk of this.disks) unmountDisk(disk);
    }
  }

  /** Holds what has come about against the model. */
  hold(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.fail((error as Error).message);
    }
  }

  readRecord(): void {
    this.model.read(readFileSync(this.record, "utf8"), this.lives);
  }

  fail(what: string): never {
    const versions = this.versions[this.version]?.name;
    throw new Error(`life ${this.lives}, litestream ${versions}: ${what}`);
  }

  /** A refusal that accuses another machine, or another app, has a reason in this history. */
  justify(reason: string | undefined): void {
    const accuses = reason === "replica-moved" || reason === "foreign-backup";
    if (reason === "replica-moved" && this.footprints) return;
    if (accuses && this.overtaken === undefined && !this.mixed && !this.byHand)
      this.fail(`a false accusation: ${reason}, but nobody else has written to the replica`);
  }

  rowsOf({ work }: Life): number {
    return this.small ? Math.min(work.rows, 20) : work.rows;
  }

  /** The others that have the database open end with the machine. */
  async stopCompany(): Promise<void> {
    for (const other of this.company) other.kill("SIGKILL");
    await Promise.all(this.company.splice(0).map((other) => other.ended));
  }

  async noProcessIn(folder: string, withinMs: number): Promise<void> {
    for (const end = Date.now() + withinMs; processesWith(folder).length > 0; ) {
      if (Date.now() > end) this.fail(`processes are left over: ${processesWith(folder).join("; ")}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** Starts a process of a life; what `spec` does not say is that of the life's machine. */
  start(role: string, version: Version, spec: Spec): Running {
    const {
      killStep,
      folder = this.folder,
      port = this.proxy.port,
      path = this.path,
      spelling = SPELLINGS[0],
      ...rest
    } = spec;
    const settings = {
      key: KEY,
      token: TOKEN,
      ...placeAs(spelling, port, path),
      folder,
      // Every other life keeps no history: what is older goes at its end.
      historyHours: this.lives % 2 === 0 ? 0 : 24,
    };
    return new Running(
      {
        role,
        dbpath: join(folder, "db.sqlite"),
        acks: this.record,
        life: this.lives,
        settings,
        litestream: version.file,
        ...rest,
      },
      killStep && `${killStep.n}:${killStep.moment}`,
    );
  }
}
