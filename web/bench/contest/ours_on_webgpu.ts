/** Our side of a contest on WebGPU: a library that TVM compiled, run as the engine runs it. */

import * as tvmjs from "@mlc-ai/web-runtime";
import { CommandLists } from "../../src/engine/command_lists";
import { createTensor, fillTensor, inScope, toFloats } from "../../src/engine/tensor";
import { createWasi } from "../../src/engine/wasi";
import { passClock } from "./gpu_clock";
import { type Case, type Clock, type Contestant, type LoadedCase, type TensorEntry, tensorBytes } from "./job";

/** The limits that tvmjs uses; the device gets the adapter's largest. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxStorageBuffersPerShaderStage",
] as const;
const FEATURES = ["shader-f16", "timestamp-query"] as const;

export class OursOnWebgpu implements Contestant {
  private constructor(
    readonly device: GPUDevice,
    private readonly tvm: tvmjs.Instance,
    private readonly gpu: tvmjs.DLDevice,
    private readonly vm: tvmjs.VirtualMachine,
    private readonly run: Map<string, tvmjs.PackedFunc>,
    private readonly lists: CommandLists,
  ) {}

  static async open(adapter: GPUAdapter, library: Uint8Array<ArrayBuffer>): Promise<OursOnWebgpu> {
    const device = await adapter.requestDevice({
      requiredFeatures: FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
    const tvm = await tvmjs.instantiate(library.buffer, createWasi(console.info, console.error), () => {});
    const lists = new CommandLists(tvm, device, false); // PassClock times a pass, and those of a call are added
    tvm.initWebGPU(device);
    const gpu = tvm.webgpu();
    const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(gpu)));
    await tvm.asyncLoadWebGPUPipelines(vm.getInternalModule());
    return new OursOnWebgpu(device, tvm, gpu, vm, new Map(), lists);
  }

  get clock(): Clock | undefined {
    return passClock(this.device);
  }

  async load(work: Case, values: Uint8Array<ArrayBuffer>): Promise<LoadedCase> {
    const { tvm, gpu, lists } = this;
    const tensor = (entry: TensorEntry) => {
      const created = createTensor(tvm, gpu, entry.shape, entry.dtype);
      fillTensor(tvm, created, tensorBytes(values, entry));
      return created;
    };
    const run = this.function(work.name);
    const inputs = work.inputs.map(tensor);
    const weights = work.params.map(tensor);
    const params = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.makeTVMArray(weights)));
    for (const weight of weights) weight.dispose(); // the tuple owns them
    const outputs = () => lists.call({ name: work.name, run, inputs, params });
    return {
      async call() {
        for (const output of outputs()) output.dispose();
      },
      finished: () => gpu.sync(),
      async outputs() {
        const onDevice = outputs();
        const copies = inScope(tvm, (scope) =>
          onDevice.map(({ shape, dtype }) => scope.detachFromCurrentScope(scope.empty(shape, dtype, scope.cpu()))),
        );
        onDevice.forEach((output, i) => {
          copies[i].copyFrom(output);
        });
        await gpu.sync();
        const read = copies.map(toFloats);
        for (const each of [...onDevice, ...copies]) each.dispose();
        return read;
      },
      async dispose() {
        lists.free();
        for (const each of [...inputs, params]) each.dispose();
      },
    };
  }

  private function(name: string): tvmjs.PackedFunc {
    const found =
      this.run.get(name) ?? inScope(this.tvm, (scope) => scope.detachFromCurrentScope(this.vm.getFunction(name)));
    this.run.set(name, found);
    return found;
  }
}
