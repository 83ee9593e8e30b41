import { expect, test } from "vitest";
import { compete, signalToNoise } from "../../../bench/contest/compete";
import type { Arena, Case, Clock, Contestant, Job, LoadedCase, Optimizations } from "../../../bench/contest/job";

const values = new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer);
const wanted = { dtype: "float32", shape: [4], byte_offset: 0, bytes: 16 } as const;
const work: Case = {
  name: "case",
  inputs: [],
  params: [],
  outputs: [wanted],
  against: null,
  values: "values",
  onnx: "onnx",
};
const job: Job = {
  library: "library",
  cases: [work],
  rounds: 3,
  turn_ms: 0,
  least_db: 60,
  gpu_clock: true,
  copy_bytes: 0,
  threads: null,
};

/** A contestant that notes what it is asked for, and whose outputs depend on the level of optimizations. */
function contestant(name: string, notes: string[], outputs: (level: Optimizations) => number[], clock?: Clock) {
  const load = async (_: Case, __: Uint8Array<ArrayBuffer>, level: Optimizations): Promise<LoadedCase> => ({
    call: async () => void notes.push(`${name} calls`),
    finished: async () => {},
    outputs: async () => [new Float32Array(outputs(level))],
    dispose: async () => void notes.push(`${name} with ${level} ends`),
  });
  return { load, clock } satisfies Contestant;
}

const right = () => [1, 2, 3, 4];
const arena = (ours: Contestant, peer: Contestant, rest_ms = 0): Arena => ({
  ours,
  peer,
  rest_ms,
  opened_ms: 0,
  copy_gigabytes_per_second: 1,
});

test("contestants take turns, after a call of each that counts how many make a turn", async () => {
  const notes: string[] = [];
  const outcome = await compete(
    job,
    work,
    values,
    arena(contestant("ours", notes, right), contestant("peer", notes, right)),
  );
  const rounds = Array(1 + job.rounds).fill(["ours calls", "peer calls"]);
  expect(notes).toEqual([...rounds.flat(), "ours with all ends", "peer with all ends"]);
  expect([outcome.ours.wall_ms.length, outcome.peer.wall_ms.length]).toEqual([3, 3]);
  expect([outcome.ours_db, outcome.peer_db, outcome.peer_optimizations]).toEqual([200, 200, "all"]);
});

test("after a rest, a turn begins with a call that is not timed", async () => {
  const notes: string[] = [];
  const began = performance.now();
  await compete(job, work, values, arena(contestant("ours", notes, right), contestant("peer", notes, right), 5));
  expect(performance.now() - began).toBeGreaterThan(2 * job.rounds * 4);
  expect(notes.filter((note) => note === "ours calls").length).toBe(1 + 2 * job.rounds);
});

test("a clock times the turns of the contestant that has one", async () => {
  const clock = { start: () => {}, durations: async () => [2, 3] };
  const outcome = await compete(
    job,
    work,
    values,
    arena(contestant("ours", [], right, clock), contestant("peer", [], right)),
  );
  expect(outcome.ours.gpu_ms).toEqual([5, 5, 5]);
  expect(outcome.peer.gpu_ms).toEqual([]);
});

test("a peer that is wrong with all optimizations gets a second try with fewer", async () => {
  const notes: string[] = [];
  const peer = contestant("peer", notes, (level) => (level === "all" ? [4, 3, 2, 1] : right()));
  const outcome = await compete(job, work, values, arena(contestant("ours", notes, right), peer));
  expect([outcome.peer_optimizations, outcome.peer_db]).toEqual(["basic", 200]);
  expect(notes[0]).toBe("peer with all ends");
});

test("against another function of ours, ours takes both sides, each with params of its own", async () => {
  const notes: string[] = [];
  const loaded: Case[] = [];
  const ours = contestant("ours", notes, () => [4, 3, 2, 1]);
  const load: Contestant["load"] = (work, ...rest) => {
    loaded.push(work);
    return ours.load(work, ...rest);
  };
  const packed: Case = { ...work, name: "packed", against: { name: "plain", params: [wanted] } };
  const outcome = await compete(job, packed, values, arena({ load }, contestant("peer", notes, right)));
  expect(loaded.map(({ name, params }) => [name, params.length])).toEqual([
    ["packed", 0],
    ["plain", 1],
  ]);
  expect([outcome.name, outcome.peer_optimizations]).toEqual(["packed", "all"]); // no second try: it has no such levels
  expect(notes).not.toContain("peer calls");
});

test("an output of another length or without numbers is no signal", () => {
  const one = [new Float32Array([1, 2])];
  expect(signalToNoise(one, [new Float32Array([1])])).toBe(-200);
  expect(signalToNoise(one, [new Float32Array([1, Number.NaN])])).toBe(-200);
  expect(signalToNoise(one, [new Float32Array([1, 2.002])])).toBeCloseTo(10 * Math.log10(5 / 0.002 ** 2), 1);
});
