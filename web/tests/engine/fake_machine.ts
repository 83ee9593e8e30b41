/**
 * TVM's virtual machine and web runtime on a fake device, as far as they launch, copy, write, read and free.
 *
 * Functions are lists of instructions. A machine takes workspace from a pool, last freed first, and returns it there. It
 * holds what it returned until it returns from the next call.
 */

import { type FakeBuffer, type FakeDevice, type Kernel, USAGE } from "./fake_gpu";

const PAGE = 32;

/** What a function does, in order. Numbers are registers: first the inputs, then the params. */
export type Instruction =
  | { readonly op: "alloc"; readonly to: number; readonly words: number }
  | {
      readonly op: "launch";
      readonly kernel: Kernel;
      readonly bound: readonly number[];
      readonly args: readonly number[];
    }
  | { readonly op: "kill"; readonly register: number }
  | { readonly op: "copy"; readonly from: number; readonly to: number }
  | { readonly op: "write"; readonly to: number; readonly words: readonly number[] };

export interface Program {
  readonly instructions: readonly Instruction[];
  readonly returned: readonly number[];
}

/** A tensor of words. `release` gets its buffer when nobody holds it. */
export class FakeTensor {
  readonly dtype = "int32";
  holders = 1;
  constructor(
    private readonly machine: FakeMachine,
    readonly shape: readonly number[],
    readonly buffer: FakeBuffer,
    private readonly release: (buffer: FakeBuffer) => void,
  ) {}
  copyFromRawBytes(bytes: Uint8Array<ArrayBuffer>) {
    this.machine.write(this.buffer, new Uint32Array(bytes.buffer));
    return this;
  }
  dispose() {
    if (--this.holders === 0) this.release(this.buffer);
  }
}

export class FakeArray {
  constructor(readonly items: readonly FakeTensor[]) {}
  size() {
    return this.items.length;
  }
  get(i: number) {
    return this.items[i];
  }
}

export class FakeMachine {
  private encoder: ReturnType<FakeDevice["createCommandEncoder"]> | undefined;
  private readonly uniforms: FakeBuffer[] = [];
  private launchedSinceFlush = 0;
  private readonly layouts = new Map<Kernel, object>();
  private readonly pool = new Map<number, FakeBuffer[]>();
  /** What it returned lately, and holds until it returns again. */
  private latest: readonly FakeTensor[] = [];
  /** How many launches it has counted. */
  counted = 0;

  constructor(readonly device: FakeDevice) {}

  // What the engine uses of an instance.
  beginScope() {}
  endScope() {}
  detachFromCurrentScope<T>(object: T): T {
    return object;
  }
  webgpu() {}
  empty(shape: readonly number[]): FakeTensor {
    const words = shape.reduce((product, size) => product * size, 1);
    return new FakeTensor(this, shape, this.create(4 * words), (buffer) => this.destroy(buffer));
  }
  getGlobalFunc() {
    return () => {
      for (const buffers of this.pool.values()) for (const buffer of buffers) this.destroy(buffer);
      this.pool.clear();
    };
  }

  /** A function of the library. */
  packed({ instructions, returned }: Program) {
    return (...args: (FakeTensor | FakeArray)[]) => {
      const given = args.flatMap((one) => (one instanceof FakeArray ? one.items : [one]));
      const registers = new Map(given.map((tensor, i) => [i, tensor]));
      const buffers = (numbers: readonly number[]) => numbers.map((i) => (registers.get(i) as FakeTensor).buffer);
      for (const instruction of instructions) {
        switch (instruction.op) {
          case "alloc":
            registers.set(instruction.to, this.allocate(instruction.words));
            break;
          case "launch":
            this.launch(instruction.kernel, buffers(instruction.bound), instruction.args);
            break;
          case "kill":
            registers.get(instruction.register)?.dispose();
            registers.delete(instruction.register);
            break;
          case "copy": {
            const [from, to] = buffers([instruction.from, instruction.to]);
            this.encoder ??= this.device.createCommandEncoder();
            this.encoder.copyBufferToBuffer(from, 0, to, 0, 16);
            break;
          }
          case "write":
            this.write(buffers([instruction.to])[0], Uint32Array.from(instruction.words));
        }
      }
      const results = returned.map((i) => registers.get(i) as FakeTensor);
      for (const tensor of results) tensor.holders++;
      for (const tensor of results) tensor.holders++;
      for (const [i, tensor] of registers) if (i >= given.length) tensor.dispose();
      for (const tensor of this.latest) tensor.dispose();
      this.latest = results;
      return results.length === 1 ? results[0] : new FakeArray(results);
    };
  }

  write(to: FakeBuffer, words: Uint32Array<ArrayBuffer>): void {
    this.flush();
    this.device.queue.writeBuffer(to, 0, words);
  }

  read({ buffer, shape }: FakeTensor): number[] {
    this.flush();
    return [...buffer.live().subarray(0, shape[0])];
  }

  private allocate(words: number): FakeTensor {
    const size = Math.ceil((4 * words) / PAGE) * PAGE;
    const buffer = this.pool.get(size)?.pop() ?? this.create(size);
    return new FakeTensor(this, [words], buffer, (freed) => {
      this.pool.set(size, [...(this.pool.get(size) ?? []), freed]);
    });
  }

  private create(size: number): FakeBuffer {
    return this.device.createBuffer({ size, usage: USAGE.storage } as { size: number });
  }

  private destroy(buffer: FakeBuffer): void {
    this.flush();
    buffer.destroy();
  }

  private launch(kernel: Kernel, buffers: readonly FakeBuffer[], args: readonly number[]): void {
    this.counted++;
    this.encoder ??= this.device.createCommandEncoder();
    const pass = this.encoder.beginComputePass();
    pass.setPipeline(kernel);
    const words = Uint32Array.from(args);
    const create = () => this.device.createBuffer({ size: 16, usage: USAGE.uniform } as { size: number });
    const uniform = this.uniforms[this.launchedSinceFlush] ?? create();
    this.uniforms[this.launchedSinceFlush++] = uniform;
    this.device.queue.writeBuffer(uniform, 0, words.buffer);
    const layout = this.layouts.get(kernel) ?? {};
    this.layouts.set(kernel, layout);
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const last = { binding: buffers.length, resource: { buffer: uniform, size: words.byteLength } };
    const descriptor = { layout, entries: [...entries, last] };
    pass.setBindGroup(0, this.device.createBindGroup(descriptor));
    pass.dispatchWorkgroups(args[0]);
    pass.end();
  }

  private flush(): void {
    if (this.encoder === undefined) return;
    this.device.queue.submit([this.encoder.finish()]);
    this.encoder = undefined;
    this.launchedSinceFlush = 0;
  }
}
