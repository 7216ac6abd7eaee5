import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { describe, expect, onTestFinished, test } from "vitest";
import { ConfigS3, InvalidOptionError, type ShutdownOptions } from "../../src/index.ts";
import { memoryLogger, tempFolder } from "../support/setup.ts";

const SETTINGS = { key: "k-e-y", token: "t-o-k-e-n", s3: "s3://x/x.db" };
const create = () =>
  new ConfigS3(
    { ...SETTINGS, folder: tempFolder() },
    { envFile: false, env: {}, logger: memoryLogger().logger },
  );
const listeners = () => [process.listenerCount("SIGTERM"), process.listenerCount("SIGINT")];

describe("options that can't be used are refused at the call, and no handler is left", () => {
  const TIMEOUT = /^The timeout must be a positive, finite number/;
  const CLOSE = /^close must be a function; it is of the type object/;
  test.each<[options: unknown, message: RegExp]>([
    ...[undefined, null, {}].map((options): [unknown, RegExp] => [options, TIMEOUT]),
    ...[0, -1, Number.NaN, "8"].map((timeoutSeconds): [unknown, RegExp] => [{ timeoutSeconds }, TIMEOUT]),
    [{ timeoutSeconds: 8, close: Promise.resolve() }, CLOSE],
  ])("%o", (options, message) => {
    const before = listeners();
    const config = create();
    expect(() => config.onShutdown(options as ShutdownOptions)).toThrow(InvalidOptionError);
    expect(() => config.onShutdown(options as ShutdownOptions)).toThrow(message);
    expect(listeners()).toEqual(before);
  });
});

test("in a worker, which gets no signals, it is refused", async () => {
  const script = `
    const { parentPort } = require("node:worker_threads");
    import(${JSON.stringify(pathToFileURL(resolve("dist/index.js")).href)}).then(({ ConfigS3 }) => {
      const config = new ConfigS3(${JSON.stringify({ ...SETTINGS, folder: tempFolder() })}, { envFile: false, env: {} });
      try { config.onShutdown({ timeoutSeconds: 8 }); }
      catch ({ code, message }) { parentPort.postMessage({ code, message }); }
    });`;
  const worker = new Worker(script, { eval: true });
  onTestFinished(() => void worker.terminate());
  const [message] = await once(worker, "message");
  expect(message).toEqual({
    code: "OPTION_INVALID",
    message: "onShutdown() must be called in the main thread: workers get no signals.",
  });
});

describe("the handlers", () => {
  test("are there once for all calls, and go with the last one", () => {
    const before = listeners();
    const once = before.map((count) => count + 1);
    const config = create();
    const removals = [config, config, create()].map((each) => each.onShutdown({ timeoutSeconds: 8 }));
    for (const remove of removals) {
      expect(listeners()).toEqual(once);
      remove();
      remove();
    }
    expect(listeners()).toEqual(before);
    create().onShutdown({ timeoutSeconds: 8, close: undefined as unknown as () => void })();
    expect(listeners()).toEqual(before);
  });

  test("come back where another one has removed all of the process's", () => {
    const config = create();
    const first = config.onShutdown({ timeoutSeconds: 8 });
    const others = process.listeners("SIGTERM");
    process.removeAllListeners("SIGTERM");
    const second = config.onShutdown({ timeoutSeconds: 8 });
    expect(process.listenerCount("SIGTERM")).toBe(1);
    first();
    second();
    expect(listeners()[0]).toBe(0);
    for (const other of others.slice(0, -1)) process.on("SIGTERM", other);
  });

  test("do not keep the process alive", async () => {
    const script = `
      import { ConfigS3 } from ${JSON.stringify(pathToFileURL(resolve("dist/index.js")).href)};
      new ConfigS3(${JSON.stringify({ ...SETTINGS, folder: tempFolder() })}, { envFile: false, env: {} })
        .onShutdown({ timeoutSeconds: 8 });`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "ignore" });
    onTestFinished(() => void child.kill("SIGKILL"));
    expect(await once(child, "close")).toEqual([0, null]);
  });
});
