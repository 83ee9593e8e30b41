/** tvmjs tensors: made, filled and read without leaving anything behind. */

import type * as tvmjs from "@mlc-ai/web-runtime";
import type { FloatArray } from "./components.ts";
import { DTYPE_BYTES } from "./constants.ts";
import { widenFloat16 } from "./float16.ts";

/** Run `action` in a scope of tvmjs that ends in any case: what is made in it and not detached is freed. */
export function inScope<T>(tvm: tvmjs.Instance, action: (tvm: tvmjs.Instance) => T): T {
  tvm.beginScope();
  try {
    return action(tvm);
  } finally {
    tvm.endScope();
  }
}

/** A new tensor that belongs to the caller. */
export function createTensor(
  tvm: tvmjs.Instance,
  device: tvmjs.DLDevice,
  shape: readonly number[],
  dtype: string,
): tvmjs.Tensor {
  return inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.empty([...shape], dtype, device)));
}

/** The same, filled with zeros. */
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

/** Fill a tensor on the GPU. The bytes go to queue.writeBuffer as they are, past the wasm heap. */
export function fillTensor(tvm: tvmjs.Instance, tensor: tvmjs.Tensor, bytes: Uint8Array<ArrayBuffer>): void {
  if (bytes.length % 4 === 0) {
    tensor.copyFromRawBytes(bytes);
    return;
  }
  // WebGPU writes multiples of four bytes, and tvmjs pads an odd number of float16 only on the way from a CPU tensor.
  inScope(tvm, (scope) =>
    tensor.copyFrom(scope.empty(tensor.shape, tensor.dtype, scope.cpu()).copyFromRawBytes(bytes)),
  );
}

/** The numbers of a tensor on the host; float16 is widened. */
export function toFloats(tensor: tvmjs.Tensor): FloatArray {
  const bytes = tensor.toRawBytes(); // a copy
  return tensor.dtype === "float16" ? widenFloat16(bytes) : new Float32Array(bytes.slice().buffer);
}

export function arrayItems(array: tvmjs.TVMArray): tvmjs.Tensor[] {
  return Array.from({ length: array.size() }, (_, i) => array.get(i) as tvmjs.Tensor);
}

export function bytesOf(values: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
