/** Our side of a contest: a library that TVM compiled, run as the engine runs it. */

import * as tvmjs from "@mlc-ai/web-runtime";
import { easeLaunches } from "../../src/engine/launches";
import { arrayItems, createTensor, fillTensor, inScope, toFloats } from "../../src/engine/tensor";
import { createWasi } from "../../src/engine/wasi";
import { type Case, type Contestant, type LoadedCase, type TensorEntry, tensorBytes } from "./job";

/** The limits that tvmjs uses; the device gets the adapter's largest. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxStorageBuffersPerShaderStage",
] as const;
const FEATURES = ["shader-f16", "timestamp-query"] as const;

export class Ours implements Contestant {
  private constructor(
    readonly device: GPUDevice,
    private readonly tvm: tvmjs.Instance,
    private readonly gpu: tvmjs.DLDevice,
    private readonly vm: tvmjs.VirtualMachine,
    private readonly run: Map<string, tvmjs.PackedFunc>,
  ) {}

  static async open(adapter: GPUAdapter, library: Uint8Array<ArrayBuffer>): Promise<Ours> {
    const device = await adapter.requestDevice({
      requiredFeatures: FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
    const tvm = await tvmjs.instantiate(library.buffer, createWasi(console.info, console.error), () => {});
    easeLaunches(device, false); // PassClock asks for a pass of its own for each launch
    tvm.initWebGPU(device);
    const gpu = tvm.webgpu();
    const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(gpu)));
    await tvm.asyncLoadWebGPUPipelines(vm.getInternalModule());
    return new Ours(device, tvm, gpu, vm, new Map());
  }

  async load(work: Case, values: Uint8Array<ArrayBuffer>): Promise<LoadedCase> {
    const { tvm, gpu } = this;
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
    const outputs = (): tvmjs.Tensor[] =>
      inScope(tvm, (scope) => {
        const result = run(...inputs, params);
        const tensors = result instanceof tvmjs.TVMArray ? arrayItems(result) : [result as tvmjs.Tensor];
        return tensors.map((output) => scope.detachFromCurrentScope(output));
      });
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
