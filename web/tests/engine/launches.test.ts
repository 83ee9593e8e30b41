import { beforeAll, describe, expect, test, vi } from "vitest";
import { easeLaunches } from "../../src/engine/launches";
import { type FakeBuffer, FakeDevice, type Kernel, USAGE } from "./fake_gpu";

beforeAll(() => {
  vi.stubGlobal("GPUBufferUsage", USAGE);
  return () => vi.unstubAllGlobals();
});

/** TVM's web runtime, as far as it launches, copies, reads and frees. */
class Runtime {
  private encoder: ReturnType<FakeDevice["createCommandEncoder"]> | undefined;
  private readonly uniforms: FakeBuffer[] = [];
  private launched = 0;
  private readonly layouts = new Map<Kernel, object>();

  constructor(readonly device: FakeDevice) {}

  alloc(size = 16): FakeBuffer {
    return this.device.createBuffer({ size, usage: USAGE.storage } as { size: number });
  }

  launch(kernel: Kernel, buffers: readonly FakeBuffer[], args: readonly number[], workgroups = 1): void {
    this.encoder ??= this.device.createCommandEncoder();
    const pass = this.encoder.beginComputePass();
    pass.setPipeline(kernel);
    const words = Uint32Array.from([...args, workgroups]);
    const create = () => this.device.createBuffer({ size: 16, usage: USAGE.uniform } as { size: number });
    const uniform = this.uniforms[this.launched] ?? create();
    this.uniforms[this.launched++] = uniform;
    this.device.queue.writeBuffer(uniform, 0, words.buffer);
    const layout = this.layouts.get(kernel) ?? {};
    this.layouts.set(kernel, layout);
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const last = { binding: buffers.length, resource: { buffer: uniform, size: words.byteLength } };
    const descriptor = { layout, entries: [...entries, last] };
    pass.setBindGroup(0, this.device.createBindGroup(descriptor));
    pass.dispatchWorkgroups(workgroups);
    pass.end();
  }

  copy(from: FakeBuffer, to: FakeBuffer): void {
    this.encoder ??= this.device.createCommandEncoder();
    this.encoder.copyBufferToBuffer(from, 0, to, 0, 16);
  }

  write(to: FakeBuffer, words: readonly number[]): void {
    this.flush();
    this.device.queue.writeBuffer(to, 0, Uint32Array.from(words));
  }

  read(from: FakeBuffer): number[] {
    this.flush();
    const encoder = this.device.createCommandEncoder();
    const staging = this.alloc();
    encoder.copyBufferToBuffer(from, 0, staging, 0, 16);
    this.device.queue.submit([encoder.finish()]);
    return [...staging.words];
  }

  free(buffer: FakeBuffer): void {
    this.flush();
    buffer.destroy();
  }

  flush(): void {
    if (this.encoder === undefined) return;
    this.device.queue.submit([this.encoder.finish()]);
    this.encoder = undefined;
    this.launched = 0;
  }
}

function eased(timesLaunches?: boolean): Runtime {
  const device = new FakeDevice();
  easeLaunches(device as unknown as GPUDevice, timesLaunches);
  return new Runtime(device);
}

/** out = in + arguments + workgroups; its result shows every input, and applied twice it is another. */
const add: Kernel = ([one, out, args], workgroups) => {
  for (let i = 0; i < 4; i++) out[i] = 3 * one[i] + out[i] + i + args[0] + 7 * args[1] + workgroups;
};
const swap: Kernel = ([one, other]) => {
  const kept = one.slice();
  one.set(other);
  other.set(kept);
};

describe("a run of launches", () => {
  test("shares one pass and one bind group, and writes its arguments once", () => {
    const runtime = eased();
    const [one, out] = [runtime.alloc(), runtime.alloc()];
    const before = { ...runtime.device.counts };
    for (let i = 0; i < 10; i++) runtime.launch(add, [one, out], [5]);
    runtime.flush();
    expect(runtime.device.counts).toEqual({ passes: 1, bindGroups: 1, writes: 1, buffers: before.buffers + 1 });
  });

  test("ends at a copy and goes on after it, in this order", () => {
    const runtime = eased();
    const [one, out] = [runtime.alloc(), runtime.alloc()];
    runtime.launch(add, [one, out], [5]);
    runtime.copy(out, one);
    runtime.launch(add, [one, out], [5]);
    expect(runtime.read(out)).toEqual([6 + 7, 7 + 7, 8 + 7, 9 + 7].map((word, i) => 3 * word + word + i + 5 + 7 + 1));
    expect(runtime.device.counts.passes).toBe(2);
  });

  test("has a pass for each launch on a device that times them", () => {
    const device = new FakeDevice();
    device.features.add("timestamp-query");
    easeLaunches(device as unknown as GPUDevice);
    const runtime = new Runtime(device);
    const buffers = [runtime.alloc(), runtime.alloc()];
    for (let i = 0; i < 3; i++) runtime.launch(swap, buffers, []);
    runtime.flush();
    expect(device.counts.passes).toBe(3);
  });

  test("leaves a pass with a descriptor, such as one that is timed, to itself", () => {
    const runtime = eased();
    const encoder = runtime.device.createCommandEncoder();
    encoder.beginComputePass().end();
    const timed = encoder.beginComputePass({ timestampWrites: {} });
    timed.end();
    encoder.beginComputePass().end();
    encoder.finish();
    expect(runtime.device.counts.passes).toBe(3);
  });
});

describe("a bind group", () => {
  test("is another for other buffers, another order, another kernel and other arguments", () => {
    const runtime = eased();
    const [a, b, c] = [runtime.alloc(), runtime.alloc(), runtime.alloc()];
    const calls = [
      () => runtime.launch(add, [a, b], [1]),
      () => runtime.launch(add, [b, a], [1]),
      () => runtime.launch(add, [a, c], [1]),
      () => runtime.launch(add, [a, b], [2]),
      () => runtime.launch(add, [a, b], [1], 2),
      () => runtime.launch(swap, [a, b], [1]),
    ];
    for (const call of [...calls, ...calls]) call();
    runtime.flush();
    expect(runtime.device.counts.bindGroups).toBe(calls.length);
  });

  test("of a destroyed buffer is not used for the buffer that takes its place", () => {
    const runtime = eased();
    const [one, out] = [runtime.alloc(), runtime.alloc()];
    runtime.launch(add, [one, out], [5]);
    runtime.free(out);
    const other = runtime.alloc();
    runtime.launch(add, [one, other], [5]);
    expect(runtime.read(other)).toEqual([13, 14, 15, 16]);
    expect(runtime.device.counts.bindGroups).toBe(2);
  });
});

test("the buffers of arguments go with the device", () => {
  const runtime = eased();
  const buffers = [runtime.alloc(), runtime.alloc()];
  runtime.launch(add, buffers, [5]);
  runtime.flush();
  for (const buffer of buffers) runtime.free(buffer);
  runtime.device.destroy();
  expect(runtime.device.buffers.map(({ destroyed }) => destroyed)).toEqual([true, true, true]);
});

test("arguments that change before their launch is submitted are refused", () => {
  const { device } = eased();
  const uniform = device.createBuffer({ size: 4, usage: USAGE.uniform } as { size: number });
  device.queue.writeBuffer(uniform, 0, Uint32Array.of(1).buffer);
  const layout = {};
  const bind = () =>
    device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: uniform } }] } as never);
  bind();
  device.queue.writeBuffer(uniform, 0, Uint32Array.of(1).buffer);
  expect(() => device.queue.writeBuffer(uniform, 0, Uint32Array.of(2).buffer)).toThrow("before the launch");
  device.queue.submit([]);
  device.queue.writeBuffer(uniform, 0, Uint32Array.of(2).buffer);
  expect(bind()).not.toBe(undefined);
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

/** Launch, copy, write, read and free at random; returns everything that was read, and all buffers at the end. */
function interleave(runtime: Runtime, seed: number): number[][] {
  const below = random(seed);
  const buffers = Array.from({ length: 3 }, () => runtime.alloc());
  const any = () => below(buffers.length);
  const seen: number[][] = [];
  const actions = [
    () => {
      const first = any();
      const second = (first + 1 + below(buffers.length - 1)) % buffers.length;
      const args = Array.from({ length: 1 + below(2) }, () => below(2));
      runtime.launch(below(3) ? add : swap, [buffers[first], buffers[second]], args, 1 + below(2));
    },
    () => {
      const from = any();
      runtime.copy(buffers[from], buffers[(from + 1) % buffers.length]);
    },
    () => runtime.write(buffers[any()], [below(9), below(9), below(9), below(9)]),
    () => seen.push(runtime.read(buffers[any()])),
    () => {
      const freed = any();
      runtime.free(buffers[freed]);
      buffers[freed] = runtime.alloc();
    },
  ];
  for (let i = 0; i < 200; i++) actions[below(5) ? 0 : below(actions.length)]();
  return [...seen, ...buffers.map((buffer) => runtime.read(buffer))];
}

test("every interleaving of launches, copies, writes, reads and frees computes the same", () => {
  for (let seed = 0; seed < 100; seed++) {
    const plain = new Runtime(new FakeDevice());
    const cheap = eased(seed % 4 === 3);
    const results = interleave(plain, seed);
    expect(interleave(cheap, seed)).toEqual(results);
    expect(results.flat().some((word) => word > 100)).toBe(true);
    if (seed % 4 < 3) expect(cheap.device.counts.passes).toBeLessThan(plain.device.counts.passes);
    expect(cheap.device.counts.bindGroups).toBeLessThan(plain.device.counts.bindGroups);
  }
});
