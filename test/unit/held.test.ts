import { expect, test } from "vitest";
import { type Dialect, identify } from "../../src/litestream/dialect.ts";

const commands = (name: string) =>
  `litestream is a tool for replicating SQLite databases.\n\nThe commands are:\n\n\t${name}    lists\n`;
const dialectOf = (name: string, replicateHelp = ""): Dialect => {
  const found = identify({ version: "", commands: commands(name), replicateHelp });
  if (found === undefined) throw new Error("no litestream");
  return found.dialect;
};
const V0_3 = dialectOf("generations");
const V0_5 = dialectOf("ltx", "\t-once\n");

const output = (lines: string[], stderr = "") => ({ stdout: `${lines.join("\n")}\n`, stderr });
const id = (n: number) => n.toString(16).padStart(16, "0");
const ltx = (...rows: [level: number, min: number, max: number][]) =>
  output([
    "level  min_txid  max_txid  size  created",
    ...rows.map(([level, min, max]) => `${level}  ${id(min)}  ${id(max)}  700  2026-12-01T02:58:50Z`),
  ]);
const at = (n: number) => ({ part: "", end: id(n) });

test("0.5: up to where it has uploaded, by the lines that say so", () => {
  const line = (rest: string) => `time=2026-12-01T02:47:06.717Z level=DEBUG msg=${rest}`;
  const uploaded = V0_5.continuous?.uploaded;
  expect(uploaded?.(line(`"replica sync" db=a.db replica=s3 txid.replica=${id(0)} txid.db=${id(1)}`))).toBe(
    undefined,
  );
  expect(
    uploaded?.(line(`"replica sync" db=a.db replica=s3 txid.replica=${id(2)} txid.db=${id(3)}`)),
  ).toEqual(at(2));
  expect(
    uploaded?.(
      line(`"ltx file uploaded" db=a.db replica=s3 level=0 minTXID=${id(3)} maxTXID=${id(3)} size=7`),
    ),
  ).toEqual(at(3));
  expect(
    uploaded?.(
      line(`"ltx file uploaded" db=a.db replica=s3 level=1 minTXID=${id(3)} maxTXID=${id(9)} size=7`),
    ),
  ).toBe(undefined);
});

test("0.5: the whole list shows the mark in any object, and the chain up to there", () => {
  const of = (list: ReturnType<typeof ltx>, mark: number) => V0_5.held?.of([list], at(mark));
  expect(of(ltx([0, 1, 1], [0, 2, 2]), 2)).toEqual({ from: at(2) });
  expect(of(ltx([1, 2, 5], [9, 1, 1]), 4)).toEqual({ from: at(4) });
  expect(of(ltx(), 2)).toEqual({ missing: expect.stringMatching(/empty/) });
  expect(of(ltx([0, 1, 1]), 2)).toEqual({ missing: expect.stringMatching(/ends before/) });
  expect(of(ltx([0, 1, 1], [0, 3, 3]), 3)).toEqual({ missing: expect.stringMatching(/in between/) });
  expect(of(output(["what is this"]), 2)).toBe(undefined);
});

test("0.5: the brief list tells only where level 0 has everything since the last look", () => {
  const briefly = (list: ReturnType<typeof ltx>, from: number, mark: number) =>
    V0_5.held?.briefly(list, at(from), at(mark));
  expect(briefly(ltx([0, 4, 4], [0, 5, 5], [0, 6, 6]), 4, 6)).toEqual(at(6));
  expect(briefly(ltx([0, 4, 4]), 4, 4)).toEqual(at(4));
  expect(briefly(ltx([0, 5, 5], [0, 6, 6]), 4, 6)).toBe(undefined);
  expect(briefly(ltx([0, 4, 4], [0, 6, 6]), 4, 6)).toBe(undefined);
  expect(briefly(ltx(), 4, 4)).toBe(undefined);
});

const G = "e00c0d17563b0715";
const wal = (...rows: [index: number, offset: number][]) =>
  output([
    "replica  generation        index  offset  size  created",
    ...rows.map(([index, offset]) => `s3       ${G}  ${index}  ${offset}  462  2026-12-01T02:58:41Z`),
  ]);
const snapshots = (...indices: number[]) =>
  output([
    "replica  generation        index  size  created",
    ...indices.map((index) => `s3       ${G}  ${index}  522  2026-12-01T02:58:41Z`),
  ]);
const place = (index: number, offset: number) => ({
  part: G,
  end: `${String(index).padStart(12, "0")}:${String(offset).padStart(16, "0")}`,
});

test("0.3: where the segment begins that it has uploaded, its index in hexadecimal", () => {
  const line = `time=2026-12-01T02:47:00.686Z level=INFO msg="wal segment written" db=/a.db replica=s3 position=${G}/0000000b:16512 elapsed=6ms sz=12360`;
  expect(V0_3.continuous?.uploaded(line)).toEqual(place(11, 16512));
  expect(V0_3.continuous?.uploaded("anything else")).toBe(undefined);
});

test("0.3: the lists show a snapshot, and the WAL from there to the mark", () => {
  const of = (segments: ReturnType<typeof wal>, list: ReturnType<typeof snapshots>, mark = place(2, 100)) =>
    V0_3.held?.of([segments, list], mark);
  const whole = wal([1, 0], [1, 500], [2, 0], [2, 100]);
  expect(of(whole, snapshots(1))).toEqual({ from: place(1, 0) });
  expect(of(whole, snapshots(0, 2))).toEqual({ from: place(2, 0) });
  expect(of(whole, snapshots())).toEqual({ missing: expect.stringMatching(/no snapshot/) });
  expect(of(wal([1, 0], [2, 0]), snapshots(1))).toEqual({ missing: expect.stringMatching(/ends before/) });
  expect(of(wal([1, 0], [2, 100]), snapshots(1))).toEqual({
    missing: expect.stringMatching(/no beginning of the WAL 2/),
  });
  expect(of(whole, output(["an error"]))).toBe(undefined);
  const failed = output(
    ["replica  generation        index  size  created"],
    "cannot determine snapshots: 403",
  );
  expect(of(whole, failed)).toBe(undefined);
});

test("0.3: the brief list begins at the snapshot of the last look", () => {
  const briefly = (segments: ReturnType<typeof wal>) =>
    V0_3.held?.briefly(segments, place(1, 0), place(2, 100));
  expect(briefly(wal([1, 0], [2, 0], [2, 100]))).toEqual(place(1, 0));
  expect(briefly(wal([2, 0], [2, 100]))).toBe(undefined);
});
