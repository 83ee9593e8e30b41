/**
 * Call a bundle's functions without TVM's virtual machine: the launches of a function are traced once, and then they are
 * the commands that every call gives to the device.
 *
 * A list of commands is made for the tensors that a call reads: its bind groups bind them, output tensors, and the workspace,
 * which all functions share. A later call with the same tensors finds the list again, as every step of a picture does.
 * What the device computes does not change by a bit: the same kernels run on the same values in the same order, and the
 * barriers between them stay, since each dispatch is a usage scope of its own
 * (https://www.w3.org/TR/webgpu/#programming-model-synchronization). `npm run bench:launches` measures what this saves.
 */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { DTYPE_BYTES } from "./constants.ts";
import { type Launch, Launches, Planned } from "./launches.ts";
import { callMachine, type FunctionCall, freePool } from "./machine.ts";
import { createTensor, fillTensor } from "./tensor.ts";

/** A tensor that a function returns, and the size of its buffer. */
interface OutputSpec {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly bytes: number;
}

/** The launches of a function, and what the buffers that they bind stand for. Other buffers are the same at every call. */
interface Trace {
  readonly launches: readonly Launch[];
  readonly inputs: readonly GPUBuffer[];
  readonly outputs: readonly (OutputSpec & { readonly buffer: Planned })[];
  readonly workspace: readonly Planned[];
  /** All that the launches bind. */
  readonly bound: ReadonlySet<GPUBuffer | Planned>;
}

/** A tensor that calls return by turns. */
interface Output {
  readonly tensor: tvmjs.Tensor;
  readonly buffer: GPUBuffer;
  isFree: boolean;
}

interface Command {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number, number];
}

interface CommandList {
  readonly commands: readonly Command[];
  readonly outputs: readonly Output[];
  /** All that the commands bind. */
  readonly bound: ReadonlySet<GPUBuffer>;
}

export class CommandLists {
  private readonly launches: Launches;
  /** By function and weights; undefined: it asks the device for more than launches, and the machine runs it. */
  private readonly traces = new Map<string, Trace | undefined>();
  /** By function, weights and the buffers that it reads. Those of one key return different tensors. */
  private readonly lists = new Map<string, CommandList[]>();
  /** By shape, dtype and bytes. */
  private readonly outputs = new Map<string, Output[]>();
  /** By bytes. */
  private readonly workspace = new Map<number, GPUBuffer[]>();
  private readonly buffers = new WeakMap<tvmjs.Tensor, GPUBuffer>();
  private readonly numbers = new WeakMap<object, number>();
  private numbered = 0;
  private submitted = 0;

  /**
   * Alters `device`, which the runtime gets afterwards.
   *
   * @param timesLaunches whether each launch has a compute pass of its own. That is so on a device with the feature
   *   timestamp-query: nobody asks for it but to time passes.
   */
  constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly device: GPUDevice,
    private readonly timesLaunches = device.features.has("timestamp-query"),
  ) {
    this.launches = new Launches(device, (buffer) => this.forget(buffer));
  }

  /** Call a function. The caller disposes what it returns. */
  call(call: FunctionCall): tvmjs.Tensor[] {
    const inputs = call.inputs.map((tensor) => this.bufferOf(tensor));
    const weighted = `${call.name} ${this.numberOf(call.params)}`; // ControlNets share functions
    const trace = this.traceOf(weighted, call, inputs);
    if (trace === undefined) return this.callMachine(call);
    const key = `${weighted}:${inputs.map((buffer) => this.numberOf(buffer)).join()}`;
    const known = this.lists.get(key) ?? [];
    let list = known.find(({ outputs }) => outputs.every(({ isFree }) => isFree));
    if (list === undefined) {
      list = this.makeList(trace, inputs);
      this.lists.set(key, [...known, list]);
    }
    for (const output of list.outputs) output.isFree = false;
    this.submit(list);
    return list.outputs.map(({ tensor }) => tensor);
  }

  /** Free the workspace, also the machine's, and the output tensors that nobody holds. */
  free(): void {
    this.lists.clear();
    for (const buffers of this.workspace.values()) for (const buffer of buffers) buffer.destroy();
    this.workspace.clear();
    const outputs = [...this.outputs.values()].flat();
    this.outputs.clear(); // a tensor that somebody holds is freed when it is disposed
    for (const { tensor, isFree } of outputs) if (isFree) tensor.dispose();
    freePool(this.tvm);
  }

  /** The number of launches that the device got, of which TVM's runtime counted `counted`. */
  launched(counted: number): number {
    return counted - this.launches.traced + this.submitted;
  }

  private traceOf(key: string, call: FunctionCall, inputs: readonly GPUBuffer[]): Trace | undefined {
    // Of a buffer that is read as two inputs, no one could tell which of them a launch binds.
    if (!this.traces.has(key) && new Set(inputs).size === inputs.length) this.traces.set(key, this.trace(call, inputs));
    return this.traces.get(key);
  }

  private trace(call: FunctionCall, inputs: readonly GPUBuffer[]): Trace | undefined {
    freePool(this.tvm); // else the machine would take its workspace from there
    const traced = this.launches.trace(() => callMachine(this.tvm, call));
    const returned = traced?.result.map((tensor) => ({ tensor, buffer: this.find(tensor) })) ?? [];
    for (const { tensor } of returned) tensor.dispose();
    freePool(this.tvm);
    if (traced === undefined) return undefined;
    const { launches, planned } = traced;
    const outputs = returned.flatMap(({ tensor: { shape, dtype }, buffer }) =>
      buffer instanceof Planned ? [{ shape, dtype, bytes: buffer.size, buffer }] : [],
    );
    const distinct = new Set(outputs.map(({ buffer }) => buffer));
    if (distinct.size < returned.length) return undefined; // an input that it returns, or one buffer as two outputs
    const workspace = planned.filter((buffer) => !distinct.has(buffer));
    const kept = workspace.filter(({ isDestroyed }) => !isDestroyed).length;
    if (kept) throw new Error(`${call.name} keeps ${kept} buffers after its call`);
    const bound = new Set(launches.flatMap(({ bindings }) => bindings.map(({ buffer }) => buffer)));
    return { launches, inputs, outputs, workspace, bound };
  }

  private callMachine(call: FunctionCall): tvmjs.Tensor[] {
    const tensors = callMachine(this.tvm, call);
    // The machine holds what it returned until it returns from the next call: its pool may have what it returned to a trace.
    freePool(this.tvm);
    return tensors;
  }

  private makeList(trace: Trace, inputs: readonly GPUBuffer[]): CommandList {
    const outputs: Output[] = [];
    for (const spec of trace.outputs) outputs.push(this.freeOutput(spec, outputs));
    const taken = new Map<number, number>();
    const workspace = trace.workspace.map(({ size }) => {
      const index = taken.get(size) ?? 0;
      taken.set(size, index + 1);
      return this.workspaceBuffer(size, index);
    });
    const real = new Map<GPUBuffer | Planned, GPUBuffer>([
      ...trace.inputs.map((buffer, i) => [buffer, inputs[i]] as const),
      ...trace.outputs.map(({ buffer }, i) => [buffer, outputs[i].buffer] as const),
      ...trace.workspace.map((buffer, i) => [buffer, workspace[i]] as const),
    ]);
    const bufferFor = (buffer: GPUBuffer | Planned) => real.get(buffer) ?? (buffer as GPUBuffer);
    const commands = trace.launches.map(({ pipeline, layout, bindings, workgroups }) => {
      const entries = bindings.map(({ binding, buffer, ...range }) => ({
        binding,
        resource: { buffer: bufferFor(buffer), ...range },
      }));
      return { pipeline, group: this.device.createBindGroup({ layout, entries }), workgroups };
    });
    return { commands, outputs, bound: new Set([...trace.bound].map(bufferFor)) };
  }

  private submit({ commands }: CommandList): void {
    if (this.launches.pending) this.flush();
    const encoder = this.device.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    let latest: GPUComputePipeline | undefined;
    for (const { pipeline, group, workgroups } of commands) {
      if (pass === undefined || this.timesLaunches) {
        pass?.end();
        pass = encoder.beginComputePass();
        latest = undefined;
      }
      if (pipeline !== latest) pass.setPipeline(pipeline);
      latest = pipeline;
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(workgroups[0], workgroups[1], workgroups[2]);
    }
    pass?.end();
    this.device.queue.submit([encoder.finish()]);
    this.submitted += commands.length;
  }

  /** Let the runtime submit what it encoded before: it does so ahead of every write. */
  private flush(): void {
    const scratch = createTensor(this.tvm, this.tvm.webgpu(), [1], "int32");
    scratch.copyFromRawBytes(new Uint8Array(4));
    scratch.dispose();
  }

  /** A tensor that nobody holds and that is none of `taken`. */
  private freeOutput({ shape, dtype, bytes }: OutputSpec, taken: readonly Output[]): Output {
    const key = `${shape} ${dtype} ${bytes}`;
    const known = this.outputs.get(key) ?? [];
    const free = known.find((output) => output.isFree && !taken.includes(output));
    if (free !== undefined) return free;
    // As large as what the machine allocated, which is whole pages, and of which a call may have used more.
    const create = () => createTensor(this.tvm, this.tvm.webgpu(), shape, dtype);
    const { result: tensor, buffer } = this.launches.created(bytes, create);
    const output = { tensor, buffer, isFree: true };
    const dispose = tensor.dispose.bind(tensor);
    tensor.dispose = () => {
      if (this.outputs.get(key)?.includes(output)) output.isFree = true;
      else dispose();
    };
    this.outputs.set(key, [...known, output]);
    this.buffers.set(tensor, buffer);
    return output;
  }

  private workspaceBuffer(bytes: number, index: number): GPUBuffer {
    const buffers = this.workspace.get(bytes) ?? [];
    this.workspace.set(bytes, buffers);
    buffers[index] ??= this.launches.workspace(bytes);
    return buffers[index];
  }

  private bufferOf(tensor: tvmjs.Tensor): GPUBuffer {
    const known = this.buffers.get(tensor);
    if (known !== undefined) return known;
    const buffer = this.find(tensor) as GPUBuffer; // it was made outside of a trace
    this.buffers.set(tensor, buffer);
    return buffer;
  }

  private find(tensor: tvmjs.Tensor): GPUBuffer | Planned {
    const bytes = tensor.shape.reduce((product, size) => product * size, DTYPE_BYTES[tensor.dtype]);
    return this.launches.find(() => fillTensor(this.tvm, tensor, new Uint8Array(bytes)));
  }

  private numberOf(object: GPUBuffer | tvmjs.TVMArray): number {
    const number = this.numbers.get(object) ?? ++this.numbered;
    this.numbers.set(object, number);
    return number;
  }

  /** Drop what binds a buffer that is destroyed, such as one of weights that leave the device. */
  private forget(buffer: GPUBuffer): void {
    for (const [key, trace] of this.traces) {
      if (trace?.bound.has(buffer) && !trace.inputs.includes(buffer)) this.traces.delete(key);
    }
    for (const [key, lists] of this.lists) {
      const left = lists.filter(({ bound }) => !bound.has(buffer));
      if (left.length) this.lists.set(key, left);
      else this.lists.delete(key);
    }
  }
}
