/** Our side of a contest on the processor: a library that TVM compiled for WebAssembly, run as the engine runs it. */

import type * as tvmjs from "@mlc-ai/web-runtime";
import { callMachine } from "../../src/engine/machine";
import { createTensor, fillTensor, inScope, toFloats } from "../../src/engine/tensor";
import { runLibrary } from "../../src/engine/threads";
import { createWasi } from "../../src/engine/wasi";
import { type Case, type Contestant, type LoadedCase, type TensorEntry, tensorBytes } from "./job";

export class OursOnProcessor implements Contestant {
  private constructor(
    private readonly tvm: tvmjs.Instance,
    private readonly vm: tvmjs.VirtualMachine,
  ) {}

  /** Throws if the library does not get so many threads. */
  static async open(library: Uint8Array<ArrayBuffer>, threads: number): Promise<OursOnProcessor> {
    const running = await runLibrary(library, createWasi(console.info, console.error), threads);
    if (running.threads !== threads) throw new Error(`our library got ${running.threads} of ${threads} threads`);
    const { tvm } = running;
    const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(scope.cpu())));
    return new OursOnProcessor(tvm, vm);
  }

  /** A call begins and ends at JavaScript's arrays, as the peer's does. */
  async load(work: Case, values: Uint8Array<ArrayBuffer>): Promise<LoadedCase> {
    const { tvm, vm } = this;
    const create = ({ shape, dtype }: TensorEntry) => createTensor(tvm, tvm.cpu(), shape, dtype);
    const fill = (tensor: tvmjs.Tensor, entry: TensorEntry) => fillTensor(tvm, tensor, tensorBytes(values, entry));
    const run = inScope(tvm, (scope) => scope.detachFromCurrentScope(vm.getFunction(work.name)));
    const inputs = work.inputs.map(create);
    const weights = work.params.map(create);
    weights.forEach((weight, i) => {
      fill(weight, work.params[i]);
    });
    const params = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.makeTVMArray(weights)));
    for (const weight of weights) weight.dispose(); // the tuple owns them
    const outputs = () => {
      inputs.forEach((input, i) => {
        fill(input, work.inputs[i]);
      });
      const results = callMachine(tvm, { name: work.name, run, inputs, params });
      const read = results.map(toFloats);
      for (const result of results) result.dispose();
      return read;
    };
    return {
      async call() {
        outputs();
      },
      async finished() {},
      async outputs() {
        return outputs();
      },
      async dispose() {
        for (const each of [...inputs, params, run]) each.dispose();
      },
    };
  }
}
