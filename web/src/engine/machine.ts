/** Call a bundle's functions by TVM's virtual machine. */

import * as tvmjs from "@mlc-ai/web-runtime";
import { arrayItems, inScope } from "./tensor.ts";

/** A function of the library, its inputs and its weights. */
export interface FunctionCall {
  readonly name: string;
  readonly run: tvmjs.PackedFunc;
  readonly inputs: readonly tvmjs.Tensor[];
  /** The same object for the same weights. */
  readonly params: tvmjs.TVMArray;
}

/** Call a function. The caller disposes what it returns. */
export function callMachine(tvm: tvmjs.Instance, { run, inputs, params }: FunctionCall): tvmjs.Tensor[] {
  return inScope(tvm, (scope) => {
    const result = run(...inputs, params);
    const tensors = result instanceof tvmjs.TVMArray ? arrayItems(result) : [result as tvmjs.Tensor];
    return tensors.map((tensor) => scope.detachFromCurrentScope(tensor));
  });
}

/** Free the workspace that the machine keeps for the next call. */
export function freePool(tvm: tvmjs.Instance): void {
  inScope(tvm, (scope) => scope.getGlobalFunc("vm.builtin.memory_manager.clear")());
}
