import { beforeAll, describe, expect, test, vi } from "vitest";
import { CommandLists } from "../../src/engine/command_lists";
import { callMachine } from "../../src/engine/machine";
import { FakeDevice, type Kernel, USAGE } from "./fake_gpu";
import { FakeArray, FakeMachine, type FakeTensor, type Instruction, type Program } from "./fake_machine";

vi.mock("@mlc-ai/web-runtime", async () => ({ TVMArray: (await import("./fake_machine")).FakeArray }));

beforeAll(() => {
  vi.stubGlobal("GPUBufferUsage", USAGE);
  return () => vi.unstubAllGlobals();
});

/** out = one + other, times what the arguments say. The result shows every input, their order and every argument. */
const mix: Kernel = ([one, other, out, args], workgroups) => {
  for (let i = 0; i < out.length; i++) {
    out[i] = 3 * (one[i % one.length] ?? 0) + 5 * (other[i % other.length] ?? 0) + i + 7 * args[1] + 11 * workgroups;
  }
};
/** In place. */
const raise: Kernel = ([one, args], workgroups) => {
  for (let i = 0; i < one.length; i++) one[i] = 3 * one[i] + args[1] + workgroups;
};

/** Calls functions of a machine, as the engine does or by the machine alone. */
class Caller {
  readonly machine = new FakeMachine(new FakeDevice());
  readonly lists: CommandLists | undefined;
  private readonly weights = new Map<FakeTensor, FakeArray>();
  private readonly functions = new Map<Program, { name: string; run: (...args: never[]) => unknown }>();

  constructor(usesLists: boolean, timesLaunches = false) {
    const { machine } = this;
    if (usesLists) this.lists = new CommandLists(machine as never, machine.device as never, timesLaunches);
  }

  tensor(...words: number[]): FakeTensor {
    return this.machine.empty([words.length]).copyFromRawBytes(new Uint8Array(Uint32Array.from(words).buffer));
  }

  call(program: Program, inputs: readonly FakeTensor[], params: readonly FakeTensor[]): FakeTensor[] {
    const known = this.functions.get(program) ?? {
      name: `function ${this.functions.size}`,
      run: this.machine.packed(program),
    };
    this.functions.set(program, known);
    const weights = this.weights.get(params[0]) ?? new FakeArray(params);
    this.weights.set(params[0], weights);
    const call = { ...known, inputs, params: weights } as never;
    return (this.lists?.call(call) ?? callMachine(this.machine as never, call)) as never;
  }

  free(): void {
    if (this.lists === undefined) this.machine.getGlobalFunc()();
    else this.lists.free();
  }
}

/** Two inputs, one param: three launches, one of them in place. */
const PROGRAM: Program = {
  instructions: [
    { op: "alloc", to: 3, words: 4 },
    { op: "launch", kernel: mix, bound: [0, 2, 3], args: [1, 5] },
    { op: "launch", kernel: raise, bound: [3], args: [2, 6] },
    { op: "alloc", to: 4, words: 4 },
    { op: "launch", kernel: mix, bound: [3, 1, 4], args: [3, 7] },
  ],
  returned: [4],
};

function both(program = PROGRAM) {
  const [plain, fast] = [new Caller(false), new Caller(true)];
  const results = (inputs: readonly number[][], params: readonly number[][]) =>
    [plain, fast].map((caller) => {
      const tensors = [inputs, params].map((values) => values.map((words) => caller.tensor(...words)));
      return caller.call(program, tensors[0], tensors[1]).map((tensor) => caller.machine.read(tensor));
    });
  return { plain, fast, results };
}

describe("a call", () => {
  test("computes what the machine computes", () => {
    const [wanted, got] = both().results(
      [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
      ],
      [[9, 10, 11, 12]],
    );
    expect(got).toEqual(wanted);
    expect(new Set(wanted.flat()).size).toBe(4);
  });

  test("of the same tensors enters the machine once, makes no bind group and has one pass", () => {
    const caller = new Caller(true);
    const [one, other, param] = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8), caller.tensor(9, 10, 11, 12)];
    caller.call(PROGRAM, [one, other], [param])[0].dispose();
    const { counts } = caller.machine.device;
    const before = { ...counts };
    const again = caller.call(PROGRAM, [one, other], [param])[0];
    expect(counts).toEqual({ ...before, passes: before.passes + 1 });
    expect(caller.machine.counted).toBe(3);
    expect(caller.lists?.launched(caller.machine.counted)).toBe(6);
    one.copyFromRawBytes(new Uint8Array(Uint32Array.of(8, 8, 8, 8).buffer));
    const values = caller.machine.read(again);
    again.dispose();
    expect(caller.machine.read(caller.call(PROGRAM, [one, other], [param])[0])).not.toEqual(values);
  });

  test("of other tensors does not enter the machine either", () => {
    const caller = new Caller(true);
    const param = caller.tensor(9, 10, 11, 12);
    for (let i = 0; i < 3; i++) caller.call(PROGRAM, [caller.tensor(i, 2, 3, 4), caller.tensor(5, 6, 7, 8)], [param]);
    expect(caller.machine.counted).toBe(3);
  });

  test("leaves the result of the call before to whoever holds it", () => {
    const caller = new Caller(true);
    const [one, other, param] = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8), caller.tensor(9, 10, 11, 12)];
    const first = caller.call(PROGRAM, [one, other], [param])[0];
    const values = caller.machine.read(first);
    one.copyFromRawBytes(new Uint8Array(Uint32Array.of(8, 8, 8, 8).buffer));
    const second = caller.call(PROGRAM, [one, other], [param])[0];
    expect(second).not.toBe(first);
    expect(caller.machine.read(first)).toEqual(values);
    first.dispose();
    expect(caller.call(PROGRAM, [one, other], [param])[0]).toBe(first);
  });

  test("with weights that were uploaded again reads those", () => {
    const caller = new Caller(true);
    const inputs = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8)];
    const param = caller.tensor(9, 10, 11, 12);
    const values = caller.machine.read(caller.call(PROGRAM, inputs, [param])[0]);
    param.dispose();
    const other = caller.machine.read(caller.call(PROGRAM, inputs, [caller.tensor(9, 10, 11, 13)])[0]);
    expect(other).not.toEqual(values);
  });

  test("of the same function and tensors with other weights reads those, as ControlNets that share a function do", () => {
    const { plain, fast } = both();
    const [wanted, got] = [plain, fast].map((caller) => {
      const inputs = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8)];
      const weights = [caller.tensor(9, 10, 11, 12), caller.tensor(13, 14, 15, 16)];
      return [0, 1, 0].map((i) => caller.machine.read(caller.call(PROGRAM, inputs, [weights[i]])[0]));
    });
    expect(got).toEqual(wanted);
    expect(got[1]).not.toEqual(got[0]);
    expect(fast.machine.counted).toBe(6);
  });

  test("that asks the device for more than launches is the machine's", () => {
    const copies: Program = { ...PROGRAM, instructions: [...PROGRAM.instructions, { op: "copy", from: 0, to: 4 }] };
    const writes: Program = {
      ...PROGRAM,
      instructions: [...PROGRAM.instructions, { op: "write", to: 4, words: [1, 2, 3, 4] }],
    };
    for (const program of [copies, writes, { ...PROGRAM, returned: [4, 4] }, { ...PROGRAM, returned: [4, 0] }]) {
      const { fast, results } = both(program);
      const [wanted, got] = results(
        [
          [1, 2, 3, 4],
          [5, 6, 7, 8],
        ],
        [[9, 10, 11, 12]],
      );
      expect(got).toEqual(wanted);
      expect(fast.lists?.launched(fast.machine.counted)).toBe(3);
    }
  });

  test("that reads one tensor twice computes the same, first and later", () => {
    const { plain, fast } = both();
    const [wanted, got] = [plain, fast].map((caller) => {
      const [one, other, param] = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8), caller.tensor(9, 10, 11, 12)];
      const read = (inputs: FakeTensor[]) => caller.machine.read(caller.call(PROGRAM, inputs, [param])[0]);
      return [read([one, one]), read([one, other]), read([other, other])];
    });
    expect(got).toEqual(wanted);
    expect(fast.machine.counted).toBe(6); // by the machine, traced, and by the list
  });

  test("has a pass for each launch on a device that times them", () => {
    const caller = new Caller(true, true);
    caller.call(PROGRAM, [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8)], [caller.tensor(9, 10, 11, 12)]);
    expect(caller.machine.device.counts.passes).toBe(3);
  });

  test("that fails in the machine fails here", () => {
    const caller = new Caller(true);
    const broken: Program = { instructions: [{ op: "launch", kernel: mix, bound: [9], args: [1] }], returned: [0] };
    expect(() => caller.call(broken, [caller.tensor(1)], [])).toThrow(TypeError);
  });
});

test("what is freed leaves the device, except the results that somebody holds", () => {
  const caller = new Caller(true);
  const [one, other, param] = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8), caller.tensor(9, 10, 11, 12)];
  const held = caller.call(PROGRAM, [one, other], [param])[0];
  caller.call(PROGRAM, [one, other], [param])[0].dispose();
  const values = caller.machine.read(held);
  caller.free();
  expect(caller.machine.read(held)).toEqual(values);
  held.dispose();
  for (const tensor of [one, other, param]) tensor.dispose();
  const live = () => caller.machine.device.buffers.filter(({ destroyed, size }) => !destroyed && size > 8);
  expect(live()).toEqual([]);
  caller.machine.device.destroy();
  expect(caller.machine.device.buffers.every(({ destroyed }) => destroyed)).toBe(true);
});

/** A generator of whole numbers below `bound` (mulberry32). */
function random(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  };
}

/** A function of two inputs and one param, of some sizes, that kills registers on its way, so that buffers are used again. */
function randomProgram(below: (bound: number) => number): Program {
  const instructions: Instruction[] = [];
  const made: number[] = [];
  for (let i = 0; i < 2 + below(8); i++) {
    const to = 3 + i;
    const readable = [0, 1, 2, ...made];
    const bound = [readable[below(readable.length)], readable[below(readable.length)], to];
    const args = Array.from({ length: 2 + below(2) }, () => 1 + below(2));
    instructions.push({ op: "alloc", to, words: [4, 7, 9][below(3)] }, { op: "launch", kernel: mix, bound, args });
    made.push(to);
    if (!below(3)) instructions.push({ op: "launch", kernel: raise, bound: [to], args });
    if (!below(20)) instructions.push({ op: "copy", from: below(2), to });
    if (made.length > 1 && !below(2)) instructions.push({ op: "kill", register: made.shift() as number });
  }
  return { instructions, returned: made.slice(-1 - below(2)) };
}

/** Call, hold, dispose, free and exchange weights at random; returns everything that was computed. */
function draw(caller: Caller, seed: number): number[][] {
  const below = random(seed);
  const programs = Array.from({ length: 3 }, () => randomProgram(below));
  const params = [...programs, ...programs].map((_, i) => caller.tensor(i + 1, 20, 30, 40)); // two sets for each
  const slots = [caller.tensor(1, 2, 3, 4), caller.tensor(5, 6, 7, 8)];
  const held: FakeTensor[] = [];
  const seen: number[][] = [];
  for (let i = 0; i < 60; i++) {
    const number = below(programs.length);
    if (!below(3)) slots[below(2)].copyFromRawBytes(new Uint8Array(Uint32Array.of(below(9), i, 1, 2).buffer));
    const set = number + programs.length * below(2);
    if (!below(15)) {
      params[set].dispose();
      params[set] = caller.tensor(below(99), 2, 3, 4);
    }
    if (!below(25)) caller.free();
    const any = () => (held.length && below(2) ? held[below(held.length)] : slots[below(2)]);
    const results = caller.call(programs[number], [any(), any()], [params[set]]);
    if (below(2)) seen.push(...results.map((tensor) => caller.machine.read(tensor)));
    held.push(...results);
    while (held.length > 4 || (held.length && !below(3))) held.splice(below(held.length), 1)[0].dispose();
  }
  return [...seen, ...held.map((tensor) => caller.machine.read(tensor))];
}

test("every interleaving of calls computes the same, in fewer passes, writes and bind groups", () => {
  let traced = 0;
  for (let seed = 0; seed < 200; seed++) {
    const [plain, fast] = [new Caller(false), new Caller(true, seed % 4 === 3)];
    const wanted = draw(plain, seed);
    expect(draw(fast, seed)).toEqual(wanted);
    expect(fast.lists?.launched(fast.machine.counted)).toBe(plain.machine.counted);
    if (fast.machine.counted < plain.machine.counted / 2) traced++;
  }
  expect(traced).toBeGreaterThan(100);
});
