/**
 * Runs a library's functions one after another on a device, until the device is lost or the library fails.
 *
 * The host passes and receives arrays. Tensors that only pass from one function to the next stay on the device.
 */

import * as tvmjs from "@mlc-ai/web-runtime";
import type { CommandLists } from "./command_lists.ts";
import type { Context, FloatArray, OnDevice, Residuals } from "./components.ts";
import { COMPUTE } from "./constants.ts";
import { type BufferBytes, lostDevice, uncaughtError } from "./device.ts";
import { narrowFloat32 } from "./float16.ts";
import type { Bundle } from "./load.ts";
import { callMachine } from "./machine.ts";
import type { Library, Manifest } from "./manifest.ts";
import { type Memory, MemoryFullError } from "./memory.ts";
import type { Pipelines } from "./pipelines.ts";
import type { LoadOptions } from "./progress.ts";
import type { Size } from "./size.ts";
import { bytesOf, createTensor, createZeros, fillTensor, inScope, toFloats } from "./tensor.ts";
import type { RunningLibrary } from "./threads.ts";
import { type FunctionEntry, functionFor } from "./variant.ts";
import { awaitWork, nextTask, untilAborted } from "./wait.ts";
import type { Weights } from "./weights.ts";

export type Input = FloatArray | Int32Array<ArrayBuffer> | tvmjs.Tensor;

/** A function of the library, and the tensors that it reads. */
interface LoadedFunction {
  readonly run: tvmjs.PackedFunc;
  /** One tensor for each input that the host writes before a call; undefined for another component's output. */
  readonly slots: readonly (tvmjs.Tensor | undefined)[];
}

/** A library that was started on a device, with its weights. */
export interface Started {
  readonly tvm: tvmjs.Instance;
  readonly target: tvmjs.DLDevice;
  readonly vm: tvmjs.VirtualMachine;
  readonly bundle: Bundle;
  readonly library: Library;
  readonly weights: Weights;
  readonly memory: Memory;
  /** Undefined: the processor. */
  readonly device?: GPUDevice;
  readonly pipelines?: Pipelines;
  readonly gpuBytes: BufferBytes;
  /** On a GPU. */
  readonly lists?: CommandLists;
  /** On the processor. */
  readonly running?: RunningLibrary;
}

export class Executor {
  /**
   * Aborts when the library cannot be used any more, so that a call that waits for the device ends. A promise would keep
   * every wait that raced with it.
   */
  private readonly breaking = new AbortController();
  /** What the present picture's caller hears while a call waits for its kernels, and the signal that ends the wait. */
  caller: LoadOptions = {};
  /** The first error that made it unusable: a lost device, a GPU error, a trap in the library. */
  private broken: Error | undefined;
  private stopped = false;
  /** Settles when the latest call is on the device's queue. */
  private queued: Promise<unknown> = Promise.resolve();
  private readonly manifest: Manifest;
  /** The functions that were called, by name. */
  private readonly functions = new Map<string, LoadedFunction>();

  constructor(private readonly started: Started) {
    const { bundle, device, memory, gpuBytes } = started;
    this.manifest = bundle.manifest;
    const fail = (error: Error) => {
      this.broken ??= error; // later calls find it
      this.breaking.abort(this.broken);
    };
    device?.lost.then((info) => this.stopped || fail(lostDevice(info, memory, gpuBytes.live)));
    device?.addEventListener("uncapturederror", ({ error }) => {
      const uncaught = uncaughtError(error, memory, gpuBytes.live);
      fail(uncaught);
      if (uncaught instanceof MemoryFullError) device.destroy(); // tvmjs then disposes itself
    });
  }

  /** Wait for `work`. Throws what makes the library unusable meanwhile. */
  unlessBroken<T>(work: Promise<T>): Promise<T> {
    return untilAborted(work, this.breaking.signal);
  }

  /** Free library and weights and destroy the device. Nothing runs afterwards. */
  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    const { running, weights, vm, tvm } = this.started;
    running?.stop();
    if (this.broken !== undefined) return; // tvmjs disposes itself when the device is lost
    for (const { run, slots } of this.functions.values()) {
      for (const object of [run, ...slots]) object?.dispose();
    }
    weights.dispose();
    vm.dispose();
    tvm.dispose(); // and the device with it
  }

  /** Queue one component after the earlier calls. The caller disposes the tensors that it returns. */
  call(name: string, inputs: readonly Input[], size?: Size): Promise<tvmjs.Tensor[]> {
    const { pipelines, weights } = this.started;
    const call = this.queued.then(async () => {
      this.guarded(() => {});
      const entry = functionFor(this.manifest, name, inputs.map(shapeOf), size);
      if (pipelines !== undefined) await this.unlessBroken(pipelines.ready(entry.function, this.caller));
      const params = await weights.take(name, () => this.synced());
      return this.guarded(() => this.run(entry, inputs, params));
    });
    this.queued = call.catch(() => {});
    return call;
  }

  /** Look a function up and make its slots, at its first call. */
  loaded({ function: name, inputs }: FunctionEntry): LoadedFunction {
    const known = this.functions.get(name);
    if (known !== undefined) return known;
    const { tvm, target, vm } = this.started;
    const run = inScope(tvm, (scope) => scope.detachFromCurrentScope(vm.getFunction(name)));
    const slots = inputs.map(({ shape, dtype }) =>
      dtype === COMPUTE ? undefined : createTensor(tvm, target, shape, dtype),
    );
    const loaded = { run, slots };
    this.functions.set(name, loaded);
    return loaded;
  }

  /** Put numbers on the device, in the compute dtype. The caller disposes the tensor. */
  put(numbers: FloatArray, shape: readonly number[]): tvmjs.Tensor {
    const { tvm, target, library } = this.started;
    const tensor = createTensor(tvm, target, shape, library.dtype);
    fillTensor(tvm, tensor, bytesOf(library.dtype === "float16" ? narrowFloat32(numbers) : numbers));
    return tensor;
  }

  /** Make a tensor of zeros. The caller disposes it. */
  zeros(shape: readonly number[], dtype: string): tvmjs.Tensor {
    const { tvm, target, library } = this.started;
    return createZeros(tvm, target, shape, dtype === COMPUTE ? library.dtype : dtype);
  }

  keep(tensors: tvmjs.Tensor[]): TensorsOnDevice {
    return new TensorsOnDevice(tensors, () => this.read(tensors));
  }

  /** Read the first of the tensors, and free them all. */
  async readOnce(tensors: tvmjs.Tensor[]): Promise<FloatArray> {
    try {
      const [values] = await this.read(tensors);
      return values;
    } finally {
      for (const tensor of tensors) tensor.dispose();
    }
  }

  /** Run `action` unless nothing can run any more. A trap is the end: the library's memory is then in an unknown state. */
  guarded<T>(action: () => T): T {
    if (this.stopped) throw new Error("the engine was unloaded");
    if (this.broken !== undefined) throw this.broken;
    try {
      return action();
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) this.broken = error;
      throw error;
    }
  }

  private run(entry: FunctionEntry, inputs: readonly Input[], params: tvmjs.TVMArray): tvmjs.Tensor[] {
    const { tvm, lists } = this.started;
    const { run, slots } = this.loaded(entry);
    // The device finishes the work that was queued before such a write, so a slot can be written again at once.
    const written = inputs.map((input, i) => {
      return input instanceof tvmjs.Tensor ? input : (slots[i] as tvmjs.Tensor).copyFromRawBytes(bytesOf(input));
    });
    const call = { name: entry.function, run, inputs: written, params };
    return lists?.call(call) ?? callMachine(tvm, call);
  }

  /** Wait until the device has finished the queued work. */
  private async synced(): Promise<void> {
    const { device, target } = this.started;
    if (device === undefined) return nextTask(); // the work is done; a message that cancels the picture is read now
    await awaitWork(this.unlessBroken(target.sync()), device);
  }

  /** Wait for the device and copy tensors to the host. */
  private async read(tensors: readonly tvmjs.Tensor[]): Promise<FloatArray[]> {
    const copies = this.guarded(() =>
      inScope(this.started.tvm, (scope) =>
        tensors.map((tensor) => {
          const copy = scope.detachFromCurrentScope(scope.empty(tensor.shape, tensor.dtype, scope.cpu()));
          return copy.copyFrom(tensor); // queued; the values are there after sync
        }),
      ),
    );
    await this.synced();
    return this.guarded(() =>
      copies.map((copy) => {
        const values = toFloats(copy);
        copy.dispose();
        return values;
      }),
    );
  }
}

class TensorsOnDevice implements Context, Residuals {
  constructor(
    readonly tensors: readonly tvmjs.Tensor[],
    readonly read: () => Promise<FloatArray[]>,
  ) {}

  /** Free the last tensor first: TVM's pool then gives the next call the same buffers, and bind groups are found again. */
  dispose(): void {
    for (const tensor of [...this.tensors].reverse()) tensor.dispose();
  }
}

/** The tensors of a value that this module made. */
export function tensorsOf(value: OnDevice): readonly tvmjs.Tensor[] {
  return (value as TensorsOnDevice).tensors;
}

function shapeOf(input: Input) {
  return input instanceof tvmjs.Tensor ? input.shape : input.length;
}
