// One process of a life: SPEC in the environment says what it does. The role `app` restores, writes and replicates, as the README's app
// does; the others are in company.mjs. Events go to stdout, one JSON line each; orders come by stdin, one word a line.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { check, close, late, now, reader, writer } from "./company.mjs";
import { endByOthers } from "./exit.mjs";
import { commitEvery, committer, contentOf, open } from "./rows.mjs";

const spec = JSON.parse(process.env.SPEC);
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
process.stdout.on("error", () => process.exit(0)); // the harness is gone

const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const order = async () => (await orders.next()).value;

async function app() {
  const { ConfigS3 } = await import("../../dist/index.js");
  const { settings, litestream, work, end } = spec;
  const config = new ConfigS3(settings, { envFile: false, litestream });
  const outcomeOf = async (promise) =>
    await promise.then(
      (value) => ({ value }),
      ({ name, code, reason, message }) => ({ error: { name, code, reason, message } }),
    );

  say({ booting: true });
  // An app that forgets its restore().
  const boot = spec.forgets
    ? { value: "forgotten" }
    : await outcomeOf(
        config.restore({ ifDbNotExists: true, ifReplicaExists: true, timeoutSeconds: spec.bootSeconds }),
      );
  say({ boot });
  if (boot.error) process.exit(1);

  await order(); // there is room on the disk again
  let db = open(spec);
  say({ content: contentOf(db) });
  if ((await order()) !== "work") process.exit(0);
  let commit = committer(db, spec, work, "the app's");
  let problem;
  const commits = (count) => {
    try {
      for (let i = 0; i < count; i += 1) commit();
    } catch (error) {
      problem = error.message; // a full disk: what is not acknowledged is not promised
    }
  };
  commits(work.rows);
  if (work.sync) {
    say({
      synced: await outcomeOf(config.replicateOnce({ timeoutSeconds: spec.syncSeconds, keepLocal: true })),
    });
    commits(work.rows);
  }
  try {
    if (work.checkpoint !== "NONE") db.pragma(`wal_checkpoint(${work.checkpoint})`);
  } catch (error) {
    problem = error.message;
  }
  say({ wrote: problem ?? true });

  let replication;
  const heard = [];
  const slowly = async (count) => {
    for (let i = 0; i < count && problem === undefined; i += 1) {
      commits(1);
      await pause(spec.continuous.everyMs);
    }
  };
  const replicate = async () => {
    const start = performance.now();
    const replicating = await outcomeOf(
      config
        .replicate({
          startTimeoutSeconds: spec.continuous.seconds,
          onFailing: (message) => heard.push(`failing: ${message}`),
          onRecovered: () => heard.push("recovered"),
        })
        .then((started) => {
          replication = started;
          return true;
        }),
    );
    say({ replicating, startOvertimeMs: performance.now() - start - spec.continuous.seconds * 1000 });
    await slowly(spec.continuous.rows);
    say({ beside: problem ?? true });
  };
  /** Until it says that all is up, which 0.3 does after a commit only. */
  const settle = async () => {
    commits(1);
    const last = new Date();
    const isUp = ({ running, failingSince, lastSync }) =>
      running && failingSince === undefined && lastSync > last;
    while (!isUp(replication.status())) await pause(20);
    say({ settled: { heard, restarts: replication.status().restarts } });
  };
  for (let word = await order(); word !== "stop"; word = (await order()) ?? "stop") {
    if (word === "replicate") await replicate();
    else if (word === "settle") await settle();
    else if (word.startsWith("more ")) {
      await slowly(Number(word.slice(5)));
      say({ more: true });
    }
  }
  if (end.how === "exit") {
    await endByOthers({ config, db, end, say, order, replication });
    return "alive";
  }
  let stop = () => {};
  if (end.writer === "same") stop = commitEvery(spec, end.everyMs, commit, db, end.checkpoints);
  else if (end.close) {
    commit = undefined;
    await close(db);
    db = undefined;
  }
  say({ closed: true });
  await order(); // the harness has prepared what happens to the shutdown
  const delays = monitorEventLoopDelay({ resolution: 2 });
  delays.enable();
  const start = performance.now();
  say({ stopping: true });
  const calls = Array.from({ length: end.calls }, () =>
    outcomeOf(
      end.stop && replication
        ? replication.stop({ timeoutSeconds: end.seconds, deleteLocal: end.stop === "delete" })
        : config.replicateOnce({ timeoutSeconds: end.seconds, takeOver: end.takeOver }),
    ),
  );
  if (end.writerMs) setTimeout(() => stop(), end.writerMs).unref();
  const result = await calls[0].then((first) => {
    stop();
    return first;
  });
  const answeredAt = now();
  delays.disable();
  const overtimeMs = performance.now() - start - end.seconds * 1000 - delays.max / 1e6;
  const others = await Promise.all(calls.slice(1));
  say({ result, others, overtimeMs, answeredAt });
  process.exit(0);
}

/** What an operator, or another app, has replicated without a boot. */
async function replicate() {
  const { ConfigS3 } = await import("../../dist/index.js");
  const { settings, litestream, seconds, takeOver } = spec;
  const config = new ConfigS3(settings, { envFile: false, litestream });
  const result = await config.replicateOnce({ timeoutSeconds: seconds, takeOver }).then(
    (value) => ({ value }),
    ({ name, code, reason, message }) => ({ error: { name, code, reason, message } }),
  );
  say({ result });
}

const roles = { app, replicate, writer, reader, late, check };
if ((await roles[spec.role](spec, say, order)) !== "alive") process.exit(0);
