import { messageOf } from "../errors.ts";
import type { Position } from "../replica-record.ts";
import type { Job } from "./binary.ts";
import { startLitestream } from "./configuration.ts";
import type { Dialect, Held, Mark, Output } from "./dialect.ts";
import { pause, withLimit, withTurn } from "./limit.ts";
import { failure, type ReplicateFailure } from "./replicate.ts";
import { furthest, hasMovedOn, LIST_LIMIT, movedOn, ownPosition } from "./writers.ts";

// litestream takes a store's word that an object is there. Its list must show it, and goes on showing it.

/** The longest that a look at the replica may take before it is given up. */
const LOOK_SECONDS = 30;
/** So many looks in a row are content with the brief list. */
const BRIEF_LOOKS = 9;
/** Before an accusation the list is taken a second time: litestream may have put objects together meanwhile. */
const AGAIN_MS = 1000;

type Accusation = { readonly reason: ReplicateFailure; readonly message: string };

/** Looks at the replica while one litestream runs. */
export class ReplicaWatch {
  readonly #job: Job;
  readonly #dialect: Dialect;
  readonly #known: () => Position;
  /** Its reason is a `CutShort`. */
  readonly #signal: AbortSignal;
  /** Up to where litestream says that it has uploaded. */
  #mark: Mark | undefined;
  /** From where the brief list must show everything; `undefined`: the whole lists are due. */
  #from: Mark | undefined;
  #brief = 0;
  #looking: Promise<unknown> | undefined;

  /** @param known how far this machine's own uploads are known to have come */
  constructor(job: Job, dialect: Dialect, known: () => Position, signal: AbortSignal) {
    this.#job = job;
    this.#dialect = dialect;
    this.#known = known;
    this.#signal = signal;
  }

  /** Takes litestream's word for how far it has come. */
  hear(line: string): void {
    const mark = this.#dialect.continuous?.uploaded(line);
    if (mark === undefined) return;
    if (this.#mark?.part !== mark.part || mark.end > this.#mark.end) this.#mark = mark;
  }

  /**
   * Whether another machine writes to the replica too, and whether it holds what litestream has uploaded. One look at a time.
   * @returns `held`, or what is wrong; `undefined`: what can't be listed tells nothing
   */
  async look(): Promise<"held" | Accusation | undefined> {
    if (this.#looking !== undefined) return undefined;
    const look = this.#look().catch((error: unknown) => {
      this.#job.logger.debug({ dbpath: this.#job.dbpath }, messageOf(error));
      return undefined;
    });
    this.#looking = look;
    await look;
    this.#looking = undefined;
    return await look;
  }

  /** Resolves once no look is under way. */
  async quiet(): Promise<void> {
    await this.#looking;
  }

  async #look(): Promise<"held" | Accusation | undefined> {
    const { position, held } = this.#dialect;
    if (position === undefined || held === undefined) return undefined;
    for (let isBrief = this.#from !== undefined && this.#brief < BRIEF_LOOKS, isAgain = false; ; ) {
      // From before the list: litestream goes on uploading meanwhile.
      const [mark, from] = [this.#mark, this.#from];
      const lists = isBrief ? [position.briefArgs ?? position.args] : held.lists;
      const outputs = await this.#list(lists);
      const [first] = outputs ?? [];
      if (outputs === undefined || first === undefined) return undefined;
      const seen = position.of(first.stdout, first.stderr);
      if (seen === undefined) return undefined;
      // After the list: what litestream has uploaded lies in its folder before.
      const own = furthest(this.#known(), ownPosition(this.#job.dbpath));
      if (hasMovedOn(this.#job.dbpath, own, seen))
        return failure(this.#job, "replica-moved", movedOn(seen.at));
      if (mark === undefined) return undefined;
      if (isBrief && from !== undefined) {
        this.#from = held.briefly(first, from, mark);
        this.#brief += 1;
        if (this.#from !== undefined) return "held";
        isBrief = false;
        continue;
      }
      const found: Held | undefined = held.of(outputs, mark);
      if (found === undefined) return undefined;
      if ("from" in found) {
        this.#from = found.from;
        this.#brief = 0;
        return "held";
      }
      this.#from = undefined;
      if (isAgain) {
        const words = `the replica does not hold what litestream has uploaded: ${found.missing}`;
        return failure(this.#job, "failed", words);
      }
      isAgain = true;
      await pause(AGAIN_MS, this.#signal);
      if (this.#signal.aborted) return undefined;
    }
  }

  async #list(lists: readonly ((dbpath: string) => string[])[]): Promise<Output[] | undefined> {
    return await withLimit(LOOK_SECONDS, this.#signal, (signal) =>
      withTurn(signal, async () => {
        const outputs: Output[] = [];
        for (const args of lists) {
          const how = { signal, capture: LIST_LIMIT };
          const { exitCode, ...output } = await startLitestream(this.#job, args(this.#job.dbpath), how).ended;
          if (exitCode !== 0) return undefined;
          outputs.push(output);
        }
        return outputs;
      }),
    );
  }
}
