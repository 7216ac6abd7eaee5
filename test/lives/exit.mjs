// How an app ends that has called onShutdown(), although somebody else ends its process.
import { close } from "./company.mjs";

/** Comes back when the process is about to end; that is not for this module to do. */
export async function endByOthers({ config, db, end, say, order, replication }) {
  const exit = () => process.exit(end.code);
  const others = () => {
    if (end.by === "handler")
      process.on("SIGTERM", () => (end.laterMs === 0 ? exit() : void setTimeout(exit, end.laterMs)));
  };
  if (end.first) others();
  config.onShutdown({ timeoutSeconds: end.seconds, close: () => close(db) });
  if (!end.first) others();
  say({ closed: true });
  await order(); // the harness has prepared what happens to the shutdown
  say({ stopping: true });
  if (end.by === "exit") setTimeout(exit, end.laterMs);
  if (end.by === "throw")
    setTimeout(() => {
      throw new Error("nobody catches this");
    }, end.laterMs);
  // A running replication keeps the process alive.
  if (end.by === "empty") replication ? exit() : process.stdin.destroy();
}
