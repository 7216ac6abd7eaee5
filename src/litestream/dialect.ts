import type { Format } from "../replica-place.ts";
import type { Environment } from "../settings.ts";
import { DAMAGED } from "./complaint.ts";

export { type Complaint, complaintOf, mayPass, NO_STATE } from "./complaint.ts";

// Everything that litestream expects, prints and means by it. Where a fact comes from: litestream's source at each
// tag, and what the binaries 0.3.9, 0.3.13, 0.3.14, 0.5.10, 0.5.17 and 0.5.18 were seen to print.

/** How a successful replication shows on the installed litestream. */
export interface Dialect {
  /** Of the backups that it makes. */
  readonly format: Format;
  /** What one replication looks like; `undefined` where litestream has no way to prove one. */
  readonly replicate?: {
    readonly args: readonly string[];
    /** The same, beginning with a full copy that needs nothing of what was there before; where it can miss something. */
    readonly anew?: readonly string[];
    /** Follows how a run has read the database; where it can miss something. */
    readonly reading?: (salt: () => number | undefined) => Reading;
    /** The line without which there was no replication. */
    readonly evidence: RegExp;
    /**
     * `self`: one synchronisation, then litestream exits by itself, and 0 means that all went up.
     * `interrupt`: it runs on; on SIGINT it synchronises a last time, and 0 means that this worked, provided that the
     * evidence came before.
     */
    readonly ends: "self" | "interrupt";
    /**
     * The line that ends the first synchronisation. SIGINT before it can leave litestream 0.3.12 – 0.3.14 hanging for
     * ever: the cancelled upload no longer reads from the pipe that its other half is writing to.
     */
    readonly settled: RegExp;
    /** After this line there is nothing left to upload, so that one that does not end on SIGINT hangs. */
    readonly uploaded: RegExp;
    /** A line after which this run can't succeed any more. */
    readonly failure: RegExp;
    /** The line that says that somebody's signal has come. */
    readonly stopping: RegExp;
    /** The complaint that what `.NAME-litestream` holds can't be read: nothing that is not also in the database or the replica. */
    readonly damaged: RegExp;
    /** Whether `.NAME-litestream` must go first, so that a new generation starts and the evidence has to come. */
    readonly startsFresh: boolean;
  };
  /** What replicating for the life of the app looks like; `undefined` where `replicate` is. */
  readonly continuous?: {
    readonly args: readonly string[];
    /** The first line of one that does not say when it has uploaded. */
    readonly mute: RegExp;
    /** Follows what it says, with or without secrets. `look` takes a look at the database's files. */
    readonly following: <Look>(look: Looks<Look>) => (line: string) => Heard<Look> | "failing" | undefined;
    /** Up to where it has uploaded, by a line that says so. */
    readonly uploaded: (line: string) => Mark | undefined;
  };
  readonly env: Environment;
  /** What makes the boots to come faster, and the bucket smaller; `undefined` where nothing is known to. */
  readonly upkeep?: {
    /** With a configuration of its own: puts objects together and removes what is older than that says. */
    readonly args: readonly string[];
    /** What it says once that is done; `snapshotted`: of the snapshot, where the configuration asks for one. */
    readonly compacted: RegExp;
    readonly snapshotted: RegExp;
  };
  /** What has a list tell that it tries again; default: it says so by itself, or can't. */
  readonly listing?: Beyond;
  /** Lists the objects of the replica; `undefined` on 0.3, whose restore tells an incomplete backup from none. */
  readonly list?: (dbpath: string) => string[];
  /** How far the replica has come; `undefined` where it can't tell. */
  readonly position?: {
    readonly args: (dbpath: string) => string[];
    /** Lists as much as tells, while litestream runs, whether another machine writes; default: all. */
    readonly briefArgs?: (dbpath: string) => string[];
    /** `undefined` when what it prints is no such list. */
    readonly of: (stdout: string, stderr: string) => Seen | undefined;
  };
  /** Whether the replica's own lists show what litestream says that it has uploaded. */
  readonly held?: {
    /** The lists that tell; the first is one that `position` reads too. */
    readonly lists: readonly ((dbpath: string) => string[])[];
    /** `undefined` where they are no such lists. */
    readonly of: (outputs: readonly Output[], mark: Mark) => Held | undefined;
    /**
     * By the brief list of `position`, whether everything from an earlier mark up to this one is there.
     * @returns the mark from where the next look begins; `undefined` where only the whole lists tell
     */
    readonly briefly: (output: Output, from: Mark, mark: Mark) => Mark | undefined;
  };
  /** Lists what the replica holds, with times, and finds the state of a moment in it. */
  readonly moment: {
    readonly args: (dbpath: string) => string[];
    /** `undefined` when what it prints is no such list. */
    readonly of: (stdout: string, stderr: string, moment: Date) => StateAt | undefined;
  };
  /** Whether a backup made by another dialect can be invisible to it; what to tell the user. */
  readonly blindTo?: string;
  /** Whether it takes a refusal of the store for an empty replica; what to tell the user. */
  readonly deaf?: string;
}

/** Looks at the files of the database, by which a commit shows. */
interface Looks<Look> {
  /** Taken now. */
  readonly now: () => Look;
  /** Taken before litestream said what is heard now. */
  readonly before: () => Look;
}

/** All that litestream has read is in the replica; every commit that shows in this look is. */
interface Heard<Look> {
  readonly synced: Look;
}

/** A place in a replica, as in `position`: the TXID (0.5), or where a segment of a generation begins (0.3). */
export interface Mark {
  readonly part: string;
  readonly end: string;
}

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** All is there up to the mark, and can be restored as far as the list tells: the mark to go on from. Else what is missing. */
export type Held = { readonly from: Mark } | { readonly missing: string };

/** What a look at the replica shows. */
export interface Seen {
  /** How far it has come: the newest TXID (0.5), or the end of each generation (0.3). */
  readonly position: Readonly<Record<string, string>>;
  /** When it was written to last, by the store's clock. */
  readonly at: Date | undefined;
  /** The sizes in bytes of the objects that are copies of files in litestream's folder, by their paths in there. */
  readonly copies: ReadonlyMap<string, number>;
}

/** A database and where its replica is. */
export interface Replica {
  readonly dbpath: string;
  /** The replica's URL. */
  readonly s3: string;
  /** The store's address, `https://HOST`; default: what the URL says, else AWS. */
  readonly endpoint?: string | undefined;
  /** The store's region; default: what the URL or the environment says, else litestream asks AWS, or takes `us-east-1`. */
  readonly region?: string | undefined;
  /** How far back a restore must be able to go. */
  readonly historyHours: number;
}

/** What litestream is to do besides a single synchronisation; `tells`: a list that names its requests on stderr. */
export type Beyond =
  | { readonly tells: true }
  | { readonly continuous: { readonly syncIntervalSeconds: number } }
  | { readonly upkeep: { readonly retentionMs: number; readonly snapshot: boolean } };

/** The configuration is its stdin, and taken as it stands. */
const CONFIGURED = ["-no-expand-env", "-config", "/dev/stdin"];

/** Tigris' own examples have the bucket in the host name (its documentation of the AWS SDKs); all others know path style. */
const VIRTUAL_HOSTED =
  /^https?:\/\/(?:[^/]*\.)?(?:storage\.tigris\.dev|t3\.storage\.dev|t3\.tigrisfiles\.io)(?::\d+)?\/?$/i;

/** How long a litestream may outlive its app for its last synchronisation: as long as 0.5 tries that. */
const LAST_SECONDS = 30;

/**
 * litestream goes on until this command ends, then synchronises a last time and ends too; not so on a signal to both, where
 * 0.3.13 gives up. Descriptor 3 comes from the app and ends with it. One that hangs in its last synchronisation is killed.
 */
const UNTIL_3_ENDS = `/bin/sh -c "read x <&3; p=$PPID; (i=0; while [ $i -lt ${LAST_SECONDS * 10} ] && kill -0 $p; do sleep 0.1 || exit; i=$((i+1)); done; kill -9 -$p) 2>/dev/null &"`;
const CONTINUOUS = ["replicate", ...CONFIGURED, "-exec", UNTIL_3_ENDS];

const NO_CHECKPOINT = 1_000_000_000;

/**
 * What litestream reads from its stdin, in all dialects (JSON is YAML). In a single call it never checkpoints: that is over
 * before it matters, an old reader would hold it up for ever, and 0.5.10 can miss what is committed around it.
 * @param beyond where it goes on: it then checkpoints as it does by default, since nobody else can
 */
export function configurationOf(
  { dbpath, s3, endpoint, region, historyHours }: Replica,
  beyond?: Beyond,
): string {
  const store =
    endpoint === undefined ? {} : { endpoint, "force-path-style": !VIRTUAL_HOSTED.test(endpoint) };
  const continuous = beyond !== undefined && "continuous" in beyond ? beyond.continuous : undefined;
  const upkeep = beyond !== undefined && "upkeep" in beyond ? beyond.upkeep : undefined;
  const seconds = continuous?.syncIntervalSeconds;
  const once = {
    "checkpoint-interval": "87600h",
    "min-checkpoint-page-count": NO_CHECKPOINT,
    "max-checkpoint-page-count": NO_CHECKPOINT,
    "truncate-page-n": NO_CHECKPOINT,
  };
  const place = { url: s3, ...store, ...(region === undefined ? {} : { region }) };
  const database = {
    path: dbpath,
    // In 0.5 only the latter counts for a single call; the default of both is a second.
    "monitor-interval": seconds === undefined ? "20ms" : `${Math.ceil(Math.min(seconds, 1) * 1000)}ms`,
    ...(seconds === undefined ? once : {}),
    replicas: [
      {
        ...place,
        "sync-interval": seconds === undefined ? "20ms" : `${Math.ceil(seconds * 1000)}ms`,
        ...(continuous === undefined ? {} : retention0_3(historyHours)),
      },
    ],
  };
  const kept =
    upkeep !== undefined ? upkeep0_5(upkeep) : continuous !== undefined ? retention0_5(historyHours) : {};
  const logging =
    beyond !== undefined && "tells" in beyond ? { logging: { level: "debug", stderr: true } } : {};
  return JSON.stringify({ ...kept, ...logging, dbs: [database] }).replace(NOT_IN_YAML, escaped);
}

// What is left of a retention must reach back to a snapshot that is old enough: one more interval between snapshots.
const SNAPSHOT_HOURS = 24;
const retention0_5 = (hours: number) => ({
  snapshot: { interval: `${SNAPSHOT_HOURS}h`, retention: inSeconds((hours + SNAPSHOT_HOURS) * 3600) },
});
const retention0_3 = (hours: number) => ({
  "snapshot-interval": inSeconds(Math.max(hours, 1) * 3600),
  retention: inSeconds(Math.max(hours, 1) * 2 * 3600),
});
const inSeconds = (count: number) => `${Math.ceil(count)}s`;

/** Puts level 0 together at once, and removes of level 0 and of the snapshots what is older. */
function upkeep0_5({ retentionMs, snapshot }: { retentionMs: number; snapshot: boolean }) {
  const [soon, never, retention] = ["100ms", "876000h", `${Math.ceil(retentionMs)}ms`];
  return {
    levels: [{ interval: soon }],
    snapshot: { interval: snapshot ? soon : never, retention },
    "l0-retention": retention,
    "l0-retention-check-interval": "1h",
  };
}

/** What JSON may have in a string and YAML may not, or takes for the end of a line. */
const NOT_IN_YAML = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;
const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;

const NEVER = /(?!)/;

/** The error of a synchronisation; 0.3.12 and later, and 0.5. Its errors in removing or compacting old objects don't count. */
const SYNC_ERROR = /^time=\S+ level=ERROR msg="(?:monitor|sync) error" /;

/**
 * 0.3: each upload is named; where nothing is left to upload, it says nothing. Nor when it has read what it uploads: a commit
 * that comes between the two can be in the look, and shows as missing only with the next one.
 */
function following0_3<Look>({ now }: Looks<Look>): (line: string) => Heard<Look> | "failing" | undefined {
  return (line) => {
    if (SYNC_ERROR.test(line)) return "failing";
    return /^time=\S+ level=INFO msg="wal segment written" db=/.test(line) ? { synced: now() } : undefined;
  };
}

/**
 * 0.5: it has read the database (`sync`, then `db sync` where that made a transaction), and what the replica has (`txid.replica`)
 * is what was read. Every so often it says that also without a commit, but not after an error in its reading. Its reading and
 * its uploads go on side by side: one may say that all is up while the other still makes the next transaction.
 */
function following0_5<Look>({ before }: Looks<Look>): (line: string) => Heard<Look> | "failing" | undefined {
  let read = false;
  let reading: string | undefined;
  // From before it began to read, which is after that line; and of the last that has come to its end.
  let look = before();
  let lookRead = look;
  let made = "";
  /** What must be up at least. */
  let due = "";
  let wanted: string | undefined;
  return (line) => {
    if (SYNC_ERROR.test(line)) {
      read = false;
      return "failing";
    }
    const [, begun, snapshot] =
      /^time=\S+ level=DEBUG msg=sync (?:.* )?txid=([0-9a-f]{16})( .*\bsnap=true)?/.exec(line) ?? [];
    if (begun !== undefined) {
      // The one before has come to its end: without a transaction, or by its `db sync`.
      if (read) lookRead = look;
      look = before();
      read = true;
      reading = begun;
      // Without new pages there is no transaction, unless it is a whole copy.
      due = snapshot === undefined ? made : begun;
    }
    if (/^time=\S+ level=DEBUG msg="db sync" (?:.* )?status=ok/.test(line) && reading !== undefined) {
      made = reading;
      due = reading;
      lookRead = look;
    }
    const [, has, goal] =
      /^time=\S+ level=\S+ msg="replica sync" .*\btxid\.replica=([0-9a-f]{16}) txid\.db=([0-9a-f]{16})/.exec(
        line,
      ) ?? [];
    wanted = goal ?? wanted;
    const [, uploaded] =
      /^time=\S+ level=\S+ msg="ltx file uploaded" .*\blevel=0 .*\bmaxTXID=([0-9a-f]{16})/.exec(line) ?? [];
    const reached = uploaded ?? has;
    const isUp = read && reached !== undefined && reached === wanted && reached >= due;
    return isUp ? { synced: lookRead } : undefined;
  };
}

/** 0.3 names the place where the segment begins: the index in hexadecimal, the offset in decimal. */
function uploaded0_3(line: string): Mark | undefined {
  const [, part, index = "", offset = ""] =
    /^time=\S+ level=INFO msg="wal segment written" db=.* position=([0-9a-f]{16})\/([0-9a-f]{8}):(\d+) /.exec(
      line,
    ) ?? [];
  return part === undefined ? undefined : { part, end: walPlace(String(Number.parseInt(index, 16)), offset) };
}

/** 0.5: what it has uploaded, or what it knows to be there. */
function uploaded0_5(line: string): Mark | undefined {
  const [, has, uploaded] =
    /^time=\S+ level=\S+ msg=(?:"replica sync" .*\btxid\.replica=([0-9a-f]{16}) |"ltx file uploaded" .*\blevel=0 .*\bmaxTXID=([0-9a-f]{16}))/.exec(
      line,
    ) ?? [];
  const end = uploaded ?? has;
  return end === undefined || /^0+$/.test(end) ? undefined : { part: "", end };
}

const V0_3: Dialect = {
  format: "0.3",
  replicate: {
    args: ["replicate", ...CONFIGURED],
    // ≤ 0.3.9: `/x/db.sqlite(s3): snapshot written GENERATION/INDEX`. Later: `time=… level=INFO msg="snapshot written" db=…`.
    evidence:
      /^(?:.*\(s3\): snapshot written [0-9a-f]{16}\/[0-9a-f]{8}$|time=\S+ level=INFO msg="snapshot written" db=)/s,
    ends: "interrupt",
    // ≤ 0.3.9 says no more, has the WAL still to upload, and does not hang.
    settled:
      /^(?:.*\(s3\): snapshot written [0-9a-f]{16}\/[0-9a-f]{8}$|time=\S+ level=INFO msg="wal segment written" db=)/s,
    uploaded: /^time=\S+ level=INFO msg="wal segment written" db=/,
    // It does not try again before the database changes again.
    // ≤ 0.3.9 begins with the database's path.
    failure:
      /^(?:time=\S+ level=ERROR msg="(?:monitor|sync) error" |\/.*(?:\(s3\): monitor|\.(?:db|sqlite): sync) error: )/s,
    stopping: /^(?:time=\S+ level=INFO msg=")?signal received, litestream shutting down"?$/,
    damaged: NEVER,
    startsFresh: true,
  },
  continuous: {
    args: CONTINUOUS,
    mute: /^litestream (?:v\S+|\(development build\))$/,
    following: following0_3,
    uploaded: uploaded0_3,
  },
  env: {},
  held: {
    lists: ["wal", "snapshots"].map((name) => (dbpath) => [name, ...CONFIGURED, dbpath]),
    of: held0_3,
    briefly: ({ stdout, stderr }, from, mark) => {
      const segments = segmentsOf(stdout, stderr);
      return segments && lacksSegments(segments, from, mark) === undefined ? from : undefined;
    },
  },
  position: { args: (dbpath) => ["wal", ...CONFIGURED, dbpath], of: endsOf0_3 },
  // Not `generations`, which wants the database to be there.
  moment: { args: (dbpath) => ["wal", ...CONFIGURED, dbpath], of: stateOf0_3 },
  blindTo:
    "litestream 0.3 cannot see backups made by litestream 0.5: where this path has one, install litestream 0.5.6 or newer",
};

/** ≥ 0.5.6. At debug level it names every request, which tells a store that keeps failing from one that is silent. */
const V0_5: Dialect = {
  format: "0.5",
  replicate: {
    args: ["replicate", "-once", ...CONFIGURED],
    anew: ["replicate", "-once", "-force-snapshot", ...CONFIGURED],
    reading: readingOf0_5,
    evidence: /^time=\S+ level=INFO msg="one-shot replication complete"(?: |$)/,
    ends: "self",
    settled: NEVER,
    uploaded: NEVER,
    // It would try that for 30 s. 0.5.18 has no words in brackets behind it.
    failure: /msg="shutdown sync failed, retrying[ "].*-litestream\/ltx\/.*: no such file/,
    stopping: NEVER,
    damaged: DAMAGED,
    startsFresh: false,
  },
  continuous: { args: CONTINUOUS, mute: NEVER, following: following0_5, uploaded: uploaded0_5 },
  upkeep: {
    args: ["replicate", ...CONFIGURED],
    // It says so once the removal is tried, whatever came of that.
    compacted: / msg="(?:compaction complete|no compaction)" (?:.* )?level=1(?: |$)/,
    snapshotted: / msg="snapshot complete"(?: |$)/,
  },
  env: { LOG_LEVEL: "debug" },
  // In a list, LOG_LEVEL would put its words between those that count.
  listing: { tells: true },
  list: (dbpath) => ["ltx", "-level", "all", ...CONFIGURED, dbpath],
  position: {
    args: (dbpath) => ["ltx", "-level", "all", ...CONFIGURED, dbpath],
    briefArgs: (dbpath) => ["ltx", "-level", "0", ...CONFIGURED, dbpath],
    of: endOf0_5,
  },
  held: {
    lists: [(dbpath) => ["ltx", "-level", "all", ...CONFIGURED, dbpath]],
    of: held0_5,
    briefly: briefly0_5,
  },
  moment: { args: (dbpath) => ["ltx", "-level", "all", ...CONFIGURED, dbpath], of: stateOf0_5 },
};

/** 0.5.0 – 0.5.5: exit code 0 whatever happened, and no line on success. */
const V0_5_WITHOUT_ONCE: Dialect = {
  format: "0.5",
  env: {},
  list: (dbpath) => ["ltx", ...CONFIGURED, dbpath],
  moment: { args: (dbpath) => ["ltx", ...CONFIGURED, dbpath], of: stateOf0_5 },
  blindTo:
    "litestream 0.5.0 – 0.5.5 cannot see backups made by litestream 0.3: where this path has one, install litestream 0.5.6 or newer",
  // Seen with 0.5.5: a wrong secret and a missing bucket are "no matching backups found", exit code 0 (its fileIterator.Close).
  deaf: "litestream 0.5.0 – 0.5.5 says that there is no backup also where the store refuses to show one (a wrong secret, a missing bucket): install litestream 0.5.10 or newer",
};

/** What `identify` asks the binary. */
export const QUESTIONS = { version: ["version"], commands: [], replicateHelp: ["replicate", "-h"] } as const;

export interface Answers {
  /** stdout of `litestream version` */
  readonly version: string;
  /** What it prints without a command. */
  readonly commands: string;
  /** What `replicate -h` prints. */
  readonly replicateHelp: string;
}

/** The version and dialect behind the answers; `undefined` when this is not litestream. */
export function identify(answers: Answers): { version: string; dialect: Dialect } | undefined {
  if (!/^litestream is a tool for replicating SQLite databases/m.test(answers.commands)) return undefined;
  const has = (command: string) => new RegExp(`^\\s+${command}\\s`, "m").test(answers.commands);
  const number = /^v?(\d+\.\d+\.\d+\S*)$/.exec(answers.version.trim())?.[1];
  // Built by `go install`, it calls itself "(development build)": then what it can do tells.
  if (has("generations") && !has("ltx"))
    return { version: number ?? "0.3 (development build)", dialect: V0_3 };
  if (!has("ltx")) return undefined;
  const takes = (flag: string) => new RegExp(`^\\s+-${flag}\\b`, "m").test(answers.replicateHelp);
  const version = number ?? "0.5 (development build)";
  if (takes("once")) return { version, dialect: V0_5 };
  // The last flag that it lists: half an answer would not tell that `-once` is missing.
  return takes("no-expand-env") ? { version, dialect: V0_5_WITHOUT_ONCE } : undefined;
}

/** The newest litestream that this library was tried with. */
export const NEWEST_TRIED = "0.5.18";

/** Whether a version is newer than any that was tried; one without a number is not known to be. */
export function isUntried(version: string): boolean {
  const [wanted, tried] = [version, NEWEST_TRIED].map((text) => /^\d+\.\d+\.\d+/.exec(text)?.[0]);
  return wanted !== undefined && tried !== undefined && collator.compare(wanted, tried) > 0;
}

const collator = new Intl.Collator("en", { numeric: true });

/**
 * What a run has read: the `whole` database, or what was `added` since the run before; `gap`: something that was
 * committed in between it may never have seen. `undefined`: it did not say.
 */
export interface Reading {
  see(line: string): void;
  /** Once the run has ended. */
  end(): "whole" | "added" | "gap" | undefined;
  /** The first transaction id (TXID) that it may have written. */
  readonly first: bigint | undefined;
  /** The TXID up to which its snapshot goes. */
  readonly snapshot: bigint | undefined;
}

/**
 * Where the `-wal` is begun anew, 0.5 may read the new one only: what was committed to the old one after the last
 * synchronisation, and checkpointed, is lost to it. 0.5.10 and 0.5.17 were seen to do that between two runs, where they
 * say so (`saltMatch=false`), and between their look at the `-wal` and its reading, where they don't; 0.5.10 also around a
 * checkpoint of its own. 0.5.17 keeps writers away from that, and synchronises once more before it. A whole copy
 * (`snap=true`, or a snapshot) has everything up to its moment.
 * @param salt the first salt of the `-wal`, to which SQLite adds 1 each time that it begins the file anew
 */
function readingOf0_5(salt: () => number | undefined): Reading {
  const head = /^time=\S+ level=DEBUG msg=/.source;
  const where = /(?:system=\S+ )?(?:db=(?:"(?:[^"\\]|\\.)*"|\S+) )?/.source;
  const verified = new RegExp(`${head}verify .*\\bsaltMatch=(true|false) `);
  const synced = new RegExp(
    `${head}sync ${where}txid=(?<txid>[0-9a-f]{16}) offset=\\d+(?<checkpoint> chkpt=true)?(?<whole> snap=true)?(?: reason=.*)?$`,
  );
  const snapshotted = new RegExp(`${head}snapshot ${where}txid=([0-9a-f]{16})(?: |$)`);
  let base = salt();
  let matches = false;
  /** How many synchronisations of the known `-wal` a checkpoint has had before it. */
  let sealed = 0;
  /** How often litestream has begun the `-wal` anew since the base. */
  let own = 0;
  let is: ReturnType<Reading["end"]>;
  let first: bigint | undefined;
  let snapshot: bigint | undefined;
  const begin = () => {
    is = "whole";
    base = salt();
    own = 0;
  };
  return {
    see(line) {
      const salts = verified.exec(line);
      if (salts) matches = salts[1] === "true";
      const taken = snapshotted.exec(line);
      if (taken) {
        begin();
        snapshot = BigInt(`0x${taken[1]}`);
      }
      const sync = synced.exec(line);
      if (sync === null) return;
      first ??= BigInt(`0x${sync.groups?.txid}`);
      if (sync.groups?.whole) begin();
      else if (matches) is ??= "added";
      else if (sync.groups?.checkpoint && sealed >= 2) own += 1;
      else is = "gap";
      sealed = matches && sync.groups?.checkpoint ? sealed + 1 : 0;
      matches = false;
    },
    get first() {
      return first;
    },
    get snapshot() {
      return snapshot;
    },
    end() {
      const now = salt();
      if (is === undefined) return undefined;
      if (base === undefined || now === undefined) return "gap";
      return (base + own) >>> 0 === now ? is : "gap";
    },
  };
}

/** What a restore is to do besides. */
export interface RestoreHow {
  /** Makes an empty replica path a success, said in one line. */
  readonly ifReplicaExists?: boolean;
  readonly integrityCheck?: "quick" | "full" | undefined;
  /** Names a state, as `moment` has found it. Default: the newest. */
  readonly state?: readonly string[] | undefined;
}

export function restoreArgs(target: string, dbpath: string, how: RestoreHow = {}): string[] {
  const { ifReplicaExists = false, integrityCheck, state = [] } = how;
  return [
    "restore",
    ...CONFIGURED,
    ...(ifReplicaExists ? ["-if-replica-exists"] : []),
    ...(integrityCheck === undefined ? [] : ["-integrity-check", integrityCheck]),
    ...state,
    "-o",
    target,
    dbpath,
  ];
}

/** What to ask before `-integrity-check` is used: here the help names no flag that the same binary refuses. */
export const RESTORE_HELP = ["restore", "-h"];

export const checksIntegrity = (restoreHelp: string) => /^\s+-integrity-check\b/m.test(restoreHelp);

/** How a restore gives the state of a moment. */
export interface StateAt {
  /** Names it. */
  readonly args: readonly string[];
  /** When the last of it has arrived in the store; `undefined` where litestream has to find it by itself. */
  readonly at: Date | undefined;
  /** When the first backup in the list has arrived; `undefined` where there is none. */
  readonly since: Date | undefined;
  /** Objects that came after `at` and not after the moment can't be restored: what is between has been lost. */
  readonly broken: boolean;
}

/** By the store's clock, which the lists show in whole seconds: the last moment of that second. */
function byItself(moment: Date): string[] {
  return ["-timestamp", new Date(Math.floor(Number(moment) / 1000) * 1000 + 999).toISOString()];
}

/**
 * 0.3: the generation that was written to last by then. By itself litestream finds one only while it was being written to:
 * nothing between two lives, nor after the last one (`no matching backups found`).
 */
function stateOf0_3(stdout: string, stderr: string, moment: Date): StateAt | undefined {
  const segments = segmentsOf(stdout, stderr);
  if (segments === undefined || segments.some(({ created }) => Number.isNaN(created))) return undefined;
  const inOrder = segments.toSorted((a, b) => a.created - b.created);
  const [first] = inOrder;
  // Without a list it may still have a snapshot, which is then all there is.
  if (first === undefined) return { args: [], at: undefined, since: undefined, broken: false };
  const since = new Date(first.created);
  const last = inOrder.findLast(({ created }) => created <= Number(moment));
  if (last === undefined) return { args: byItself(moment), at: undefined, since, broken: false };
  const { generation, created } = last;
  const goesOn = inOrder.some((one) => one.generation === generation && one.created > created);
  const args = ["-generation", generation, ...(goesOn ? byItself(moment) : [])];
  return { args, at: new Date(created), since, broken: false };
}

/**
 * 0.5: the transaction that could be reached by then. Not by `-timestamp`: where a path also has backups of 0.3, 0.5.10 and
 * 0.5.17 were seen to take those although they are older, and a gap in the chain silently gives the state before it.
 */
function stateOf0_5(stdout: string, _stderr: string, moment: Date): StateAt | undefined {
  const objects = objectsOf(stdout);
  if (objects === undefined || objects.some(({ created }) => Number.isNaN(created))) return undefined;
  const firsts = objects.filter(({ min }) => min <= 1n).map(({ created }) => created);
  const since = firsts.length === 0 ? undefined : new Date(Math.min(...firsts));
  const byThen = objects.filter(({ created }) => created <= Number(moment));
  const plan = restorePlan(byThen);
  const reached = plan.at(-1)?.max;
  // It may have backups of 0.3.
  if (reached === undefined) return { args: byItself(moment), at: undefined, since, broken: false };
  // A gap is none where a compaction has put it into an object that also holds what came later.
  const broken = byThen.some(({ max }) => max > reached) && chainOf(stdout) !== "whole";
  const args = ["-txid", reached.toString(16).padStart(16, "0")];
  return { args, at: new Date(Math.max(...plan.map(({ created }) => created))), since, broken };
}

/** The line of a restore with `-if-replica-exists` on a path without a backup, in all dialects. */
export const NO_BACKUP = /^(?:time=\S+ level=INFO msg=")?no matching backups found"?$/;

/** What one call of ours has written. */
export interface Written {
  /** The first transaction id (TXID) of it. */
  readonly first: bigint | undefined;
  /** The TXID up to which a snapshot of this call goes. */
  readonly snapshot: bigint | undefined;
  /** The TXID that litestream has come to. */
  readonly position: bigint;
}

/**
 * `broken`: an object at the beginning or in between is missing, or one that is older than what was written hides it, so
 * that a restore fails, finds nothing, or gives an old state. `ahead`: the replica goes on after what was written.
 */
export type Chain = "none" | "whole" | "broken" | "ahead";

/** An object of a 0.5 replica, as `litestream ltx` lists it. */
export interface ReplicaObject {
  /** 0: as it was uploaded; 9: a snapshot; in between: compacted. */
  readonly level: number;
  /** The transactions (TXID) that it holds, first and last. */
  readonly min: bigint;
  readonly max: bigint;
  /** In bytes; `NaN` where the list does not say. */
  readonly size: number;
  /** By the store's clock, in ms since 1970, a whole second; `NaN` where the list does not say. */
  readonly created: number;
}

/** What 0.5 lists, one object a line, the transactions in hexadecimal; `undefined` when it is no such list. */
export function objectsOf(stdout: string): ReplicaObject[] | undefined {
  const [header = "", ...rows] = stdout.trimEnd().split("\n");
  if (!/^(?:level\s+)?min_txid\s+max_txid\s+size\s+created\s*$/.test(header)) return undefined;
  const objects: ReplicaObject[] = [];
  for (const row of rows) {
    const [, level, min, max, size, created = ""] =
      /^(?:(\d+)\s+)?([0-9a-f]{16})\s+([0-9a-f]{16})\s+(?:(\d+)\s+)?(\S+)?/.exec(row) ?? [];
    if (min === undefined) return undefined;
    objects.push({
      level: Number(level ?? 0),
      min: BigInt(`0x${min}`),
      max: BigInt(`0x${max}`),
      size: Number(size ?? Number.NaN),
      created: Date.parse(created),
    });
  }
  return objects;
}

/** The highest TXID of all objects: compaction takes away those of level 0. */
function endOf0_5(stdout: string): Seen | undefined {
  const objects = objectsOf(stdout);
  if (objects === undefined) return undefined;
  const newest = objects.toSorted((a, b) => (a.max < b.max ? -1 : Number(a.max > b.max))).at(-1);
  // litestream uploads its files of level 0 as they are, byte for byte (seen: 0.5.10, 0.5.17).
  const copies = objects
    .filter(({ level, size }) => level === 0 && !Number.isNaN(size))
    .map(({ min, max, size }) => [`ltx/0/${txid(min)}-${txid(max)}.ltx`, size] as const);
  return {
    position: newest === undefined ? {} : { "": txid(newest.max) },
    at: newest && dateOf(newest.created),
    copies: new Map(copies),
  };
}

/** As litestream writes it. */
const txid = (id: bigint) => id.toString(16).padStart(16, "0");

/** A text that sorts as the place does. */
const walPlace = (index: string, offset: string) => `${index.padStart(12, "0")}:${offset.padStart(16, "0")}`;

interface Segment {
  readonly generation: string;
  readonly index: number;
  /** Its index and offset. */
  readonly end: string;
  readonly created: number;
}

/** What 0.3 lists by `wal`, one segment a line; it prints index, offset and size in decimal. */
function segmentsOf(stdout: string, stderr: string): Segment[] | undefined {
  // Its exit code is 0 all the same. Later versions say it on stdout, in the middle of the list.
  if (/: cannot (?:determine generations|fetch wal segments): /.test(stderr)) return undefined;
  const [header = "", ...rows] = stdout.trimEnd().split("\n");
  if (!/^replica\s+generation\s+index\s+offset\s+size\s+created\s*$/.test(header)) return undefined;
  const segments: Segment[] = [];
  for (const row of rows) {
    const [, generation, index, offset, created = ""] =
      /^\S+\s+([0-9a-f]{16})\s+(\d+)\s+(\d+)\s+\d+\s+(\S+)/.exec(row) ?? [];
    if (generation === undefined || index === undefined || offset === undefined) return undefined;
    const end = walPlace(index, offset);
    segments.push({ generation, index: Number(index), end, created: Date.parse(created) });
  }
  return segments;
}

/** Of each generation the end of its newest WAL segment. */
function endsOf0_3(stdout: string, stderr: string): Seen | undefined {
  const segments = segmentsOf(stdout, stderr);
  if (segments === undefined) return undefined;
  const position: Record<string, string> = {};
  let last = Number.NaN;
  for (const { generation, end, created } of segments) {
    if (end > (position[generation] ?? "")) position[generation] = end;
    if (!(created <= last)) last = created;
  }
  return { position, at: dateOf(last), copies: new Map() };
}

/** What 0.3 needs for a restore of the mark: a snapshot, and a beginning of each index of the WAL from there on. */
function held0_3([wal, snapshots]: readonly Output[], mark: Mark): Held | undefined {
  const segments = wal && segmentsOf(wal.stdout, wal.stderr);
  if (segments === undefined || snapshots === undefined) return undefined;
  if (/cannot (?:determine|fetch|find)/.test(snapshots.stderr)) return undefined;
  const [header = "", ...rows] = snapshots.stdout.trimEnd().split("\n");
  if (!/^replica\s+generation\s+index\s+size\s+created\s*$/.test(header)) return undefined;
  let newest: Mark | undefined;
  for (const row of rows) {
    const [, part, index] = /^\S+\s+([0-9a-f]{16})\s+(\d+)\s+\d+\s/.exec(row) ?? [];
    if (part === undefined || index === undefined) return undefined;
    const begin = { part, end: walPlace(index, "0") };
    if (part === mark.part && begin.end <= mark.end && begin.end >= (newest?.end ?? "")) newest = begin;
  }
  if (newest === undefined) return { missing: `its list has no snapshot of the generation ${mark.part}` };
  const missing = lacksSegments(segments, newest, mark);
  return missing === undefined ? { from: newest } : { missing };
}

/** What of the WAL is missing between the two; `undefined`: nothing. */
function lacksSegments(segments: readonly Segment[], from: Mark, { part, end }: Mark): string | undefined {
  const own = segments.filter(({ generation }) => generation === part);
  if (from.part !== part || !own.some((segment) => segment.end >= end)) {
    return `its list of the WAL of the generation ${part} ends before what was uploaded last`;
  }
  const places = new Set(own.map((segment) => segment.end));
  const [first, last] = [from.end, end].map((place) => Number.parseInt(place, 10)) as [number, number];
  for (let index = first; index <= last; index += 1) {
    if (!places.has(walPlace(String(index), "0"))) {
      return `its list has no beginning of the WAL ${index} of the generation ${part}, so that a restore would fail`;
    }
  }
  return undefined;
}

/** Whether the list shows the mark, in whatever object it has come to be, and a chain of objects up to there. */
function held0_5([all]: readonly Output[], mark: Mark): Held | undefined {
  const objects = all && objectsOf(all.stdout);
  const chain = all && chainOf(all.stdout);
  if (objects === undefined || chain === undefined) return undefined;
  if (chain === "none") return { missing: "its list of objects is empty" };
  if (!objects.some(({ max }) => max >= BigInt(`0x${mark.end}`))) {
    return { missing: `its list ends before the transaction ${mark.end}` };
  }
  return chain === "whole"
    ? { from: mark }
    : { missing: "its list lacks objects at the beginning or in between, so that a restore would fail" };
}

/** Level 0 loses what was compacted, and then only the whole list tells. */
function briefly0_5({ stdout }: Output, from: Mark, mark: Mark): Mark | undefined {
  const [first, last] = [from.end, mark.end].map((end) => BigInt(`0x${end}`)) as [bigint, bigint];
  let reached = first - 1n;
  for (const { min, max } of objectsOf(stdout)?.toSorted(byFirst) ?? []) {
    if (min <= reached + 1n && max > reached) reached = max;
  }
  return reached >= last ? mark : undefined;
}

const dateOf = (ms: number) => (Number.isNaN(ms) ? undefined : new Date(ms));

/**
 * Whether a restore of the newest state finds all that it needs in what 0.5 lists; `undefined` when it is no such list.
 * litestream takes its own position from level 0 alone. Where the newest of those objects have been deleted, it uses their
 * TXIDs again, and a restore prefers the older snapshot (level 9) of the same TXID.
 */
export function chainOf(stdout: string, written?: Written): Chain | undefined {
  const objects = objectsOf(stdout);
  if (objects === undefined || objects.length === 0) return objects && "none";
  let reached = 0n;
  let newest = 0n;
  for (const { min, max } of objects.toSorted(byFirst)) {
    if (min <= reached + 1n && max > reached) reached = max;
    if (max > newest) newest = max;
  }
  if (written === undefined) return reached === newest ? "whole" : "broken";
  const { first = 0n, snapshot = 0n, position } = written;
  if (newest > position) return "ahead";
  const hidden = objects.some(({ level, max }) => level > 0 && max >= first && max > snapshot);
  return reached === position && !hidden ? "whole" : "broken";
}

const byFirst = (a: ReplicaObject, b: ReplicaObject) => (a.min < b.min ? -1 : Number(a.min > b.min));

const SNAPSHOT_LEVEL = 9;

/**
 * What a restore of the newest state downloads: the newest snapshot, then again and again the object that goes on from
 * there and reaches furthest (CalcRestorePlan in litestream's replica.go, the same in 0.5.10 and 0.5.17). It does not know
 * that the first object of each life is a whole copy too.
 */
export function restorePlan(objects: readonly ReplicaObject[]): ReplicaObject[] {
  const furthest = (some: ReplicaObject[]) =>
    some.reduce<ReplicaObject | undefined>(
      (best, one) => (best && best.max >= one.max ? best : one),
      undefined,
    );
  const plan: ReplicaObject[] = [];
  let next = furthest(objects.filter(({ level }) => level === SNAPSHOT_LEVEL));
  let rest = objects.filter(({ level }) => level < SNAPSHOT_LEVEL);
  for (let reached = 0n; ; ) {
    if (next !== undefined) {
      plan.push(next);
      reached = next.max;
    }
    rest = rest.filter(({ max }) => max > reached);
    next = furthest(rest.filter(({ min }) => min <= reached + 1n));
    if (next === undefined) return plan;
  }
}

/** What a call may do for the boots to come, once all that it had to do is proven. */
export interface Upkeep {
  /** A snapshot is worth its upload: a restore would download more than `LONGEST_PLAN` copies of the database. */
  readonly snapshot: boolean;
  /**
   * What is older may go, in ms since 1970 by the store's clock, and it is enough to be worth the work; `undefined`: nothing.
   * A state within the history is still there afterwards: the newest snapshot before it stays, and all that came since.
   */
  readonly before: number | undefined;
}

/**
 * In copies of the database: two, and what was added to them. A life adds one, so that every second life uploads a copy
 * more, and no boot downloads much more than twice what the first did.
 */
const LONGEST_PLAN = 2.5;
/** In copies of the database: removing downloads and uploads about one each itself. And as a share of what stays. */
const WORTH_REMOVING = 2;
const SHARE_REMOVED = 0.5;

/**
 * @param objects all of the replica, after this call's proof
 * @param copy the size of a whole copy as it lies in the replica (compressed), in bytes
 * @param historyMs how far back a restore must be able to go
 */
export function upkeepOf(objects: readonly ReplicaObject[], copy: number, historyMs: number): Upkeep {
  const bytes = (some: readonly ReplicaObject[]) => some.reduce((sum, { size }) => sum + size, 0);
  const plan = restorePlan(objects);
  // By the store's own clock: this machine's may be wrong, and the newest object has only just been written.
  const since = Math.max(...objects.map(({ created }) => created)) - historyMs;
  const bases = objects.filter(({ level, created }) => level === SNAPSHOT_LEVEL && created <= since);
  const before = bases.length > 0 ? Math.max(...bases.map(({ created }) => created)) : undefined;
  // What is compacted goes as well, but later: it does not count.
  const old = objects.filter(
    ({ level, created }) =>
      before !== undefined && created < before && (level === 0 || level === SNAPSHOT_LEVEL),
  );
  const worth = Math.max(WORTH_REMOVING * copy, SHARE_REMOVED * (bytes(objects) - bytes(old)));
  return {
    snapshot: plan.length > 1 && bytes(plan) > LONGEST_PLAN * copy,
    before: bytes(old) >= worth ? before : undefined,
  };
}

/** The size of the whole copy that a call has uploaded, in bytes; `undefined` where the list has none. */
export function copySize(
  objects: readonly ReplicaObject[],
  written: Omit<Written, "position">,
): number | undefined {
  const { first, snapshot } = written;
  const copy =
    objects.find(({ level, max }) => level === SNAPSHOT_LEVEL && max === snapshot) ??
    objects.find(({ level, min }) => level === 0 && min === first);
  return copy?.size;
}

/** Where litestream finds the store of a replica. */
export interface StoreAddress {
  /** For people: the address, or the URL that stands for it. */
  readonly shown: string;
  /** Where a request without a signature gets to the same server; `undefined` where that is not sure. */
  readonly ask: URL | undefined;
}

/** Shows in the host of the URL: a store on this machine. 0.5 takes any `BUCKET.HOST:PORT` so, 0.3 only this one. */
const LOCAL = /^(?:(.+)\.)?localhost$/i;

/**
 * `named`: the URL alone leads to AWS or to another of the public stores that litestream knows, by HTTPS: their certificate is
 * proof that they are stores (`ParseHost` in litestream's s3/replica_client.go, 0.3.14 and 0.5.18).
 */
export function storeAddress(
  { s3, endpoint }: Pick<Replica, "s3" | "endpoint">,
  env: Environment,
): StoreAddress | "named" {
  const [, host = "", port, rest = ""] = /^s3:\/\/([^/:?#]*)(?::(\d+))?(.*)$/.exec(s3) ?? [];
  const local = LOCAL.exec(host);
  // 0.5 takes the address also from parameters of the URL, and from the environment.
  const isElsewhere = rest.includes("?") || Boolean(env.AWS_ENDPOINT_URL_S3 || env.AWS_ENDPOINT_URL);
  if (endpoint === undefined && local === null && port === undefined && !isElsewhere) return "named";
  const address = endpoint ?? (local && port && !rest.includes("?") ? `http://localhost:${port}` : undefined);
  if (address === undefined) return { shown: s3, ask: undefined };
  // What a proxy makes of litestream's requests, only litestream can ask.
  const isProxied = Object.keys(env).some((name) => /^https?_proxy$/i.test(name));
  const ask = `${address.replace(/\/+$/, "")}/${local?.[1] ?? host}?list-type=2&max-keys=0`;
  return { shown: address, ask: isProxied || !URL.canParse(ask) ? undefined : new URL(ask) };
}

/** The URL with another bucket, as litestream reads it. */
export const withBucket = (s3: string, bucket: string) => s3.replace(/^s3:\/\/[^./:?#]+/, `s3://${bucket}`);

/**
 * Whether the line has a refusal that only S3 gives. litestream's SDKs make codes of their own from the status of an answer,
 * such as `Forbidden` or `NotFound`, and may show the body of one that they can't read.
 */
export function refusesAsS3(line: string): boolean {
  return REFUSAL.test(line) && !/SerializationError|UnmarshalError|deserialization failed/.test(line);
}
const REFUSAL =
  /(?:[:,=]\s*"?|api error )(?:NoSuchBucket|AccessDenied|AllAccessDisabled|InvalidAccessKeyId|SignatureDoesNotMatch|AuthorizationHeaderMalformed|InvalidBucketName|RequestTimeTooSkewed|InvalidToken|ExpiredToken)(?:[:,]|$)/;
