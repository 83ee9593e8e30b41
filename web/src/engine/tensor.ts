/** Make, fill and read tvmjs tensors without leaking memory. */

import type * as tvmjs from "@mlc-ai/web-runtime";
import type { FloatArray } from "./components.ts";
import { DTYPE_BYTES } from "./constants.ts";
import { widenFloat16 } from "./float16.ts";

/** Run `action` in a scope of tvmjs, and free what it made and did not detach, also if it throws. */
export function inScope<T>(tvm: tvmjs.Instance, action: (tvm: tvmjs.Instance) => T): T {
  tvm.beginScope();
  try {
    return action(tvm);
  } finally {
    tvm.endScope();
  }
}

/** Create a tensor with undefined content. The caller disposes it. */
export function createTensor(
  tvm: tvmjs.Instance,
  device: tvmjs.DLDevice,
  shape: readonly number[],
  dtype: string,
): tvmjs.Tensor {
  return inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.empty([...shape], dtype, device)));
}

/** Create a tensor of zeros. The caller disposes it. */
export function createZeros(
  tvm: tvmjs.Instance,
  device: tvmjs.DLDevice,
  shape: readonly number[],
  dtype: string,
): tvmjs.Tensor {
  const tensor = createTensor(tvm, device, shape, dtype);
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  fillTensor(tvm, tensor, new Uint8Array(bytes));
  return tensor;
}

/** Fill a tensor on the GPU with bytes in C order. They go to queue.writeBuffer, not through the wasm heap. */
export function fillTensor(tvm: tvmjs.Instance, tensor: tvmjs.Tensor, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length % 4 === 0) {
    tensor.copyFromRawBytes(bytes);
    return;
  }
  // WebGPU writes multiples of four bytes. tvmjs pads an odd number of float16 values only when it copies a CPU tensor.
  inScope(tvm, (scope) =>
    tensor.copyFrom(scope.empty(tensor.shape, tensor.dtype, scope.cpu()).copyFromRawBytes(bytes)),
  );
}

/** Read a float32 or float16 tensor that is on the host; float16 is widened. */
export function toFloats(tensor: tvmjs.Tensor): FloatArray {
  const bytes = tensor.toRawBytes(); // a copy
  return tensor.dtype === "float16" ? widenFloat16(bytes) : new Float32Array(bytes.slice().buffer);
}

/** List the tensors of a TVM array. The current scope owns them. */
export function arrayItems(array: tvmjs.TVMArray): tvmjs.Tensor[] {
  return Array.from({ length: array.size() }, (_, i) => array.get(i) as tvmjs.Tensor);
}

/** View the bytes of `values` without a copy. */
export function bytesOf(values: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
