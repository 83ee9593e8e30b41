/** The browser's processor: the library that it runs, and whether a model fits into WebAssembly's memory. */

import { gigabytes } from "./byte_text.ts";
import type { OpenDevice } from "./device.ts";
import { UserError } from "./errors.ts";
import type { Library, Manifest } from "./manifest.ts";
import { BUFFERS_PER_HEAP } from "./memory.ts";

/**
 * What weights and activations may take. A library's memory grows to 2 GiB (mlc_controlnet/toolchain/link_wasm.py); the rest
 * is for the runtime, the workspace of kernels and what the allocator cannot use.
 */
export const PROCESSOR_MEMORY_BYTES = 1.9e9;

/** The instruction sets that libraries are built for, the best first, each with a module that only such a browser accepts. */
const PROBES: Readonly<Record<string, readonly number[]>> = {
  // i8x16.relaxed_swizzle, i8x16.popcnt
  "wasm-relaxed-simd": [65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11],
  "wasm-simd128": [65, 0, 253, 15, 253, 98, 11],
};
/** A module with one function, which returns a vector. The lengths of its code section and its body follow. */
const MODULE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0];
const CODE_SECTION = 10;

/** Return whether this browser runs code of an instruction set. */
export function hasInstructionSet(name: string): boolean {
  const code = PROBES[name];
  if (code === undefined) return false;
  const body = [code.length + 1, 0, ...code]; // no locals
  return WebAssembly.validate(Uint8Array.from([...MODULE, CODE_SECTION, body.length + 1, 1, ...body]));
}

/** Return the best of the bundle's libraries that this browser's processor runs; undefined if there is none. */
export function processorLibrary(libraries: readonly Library[], has = hasInstructionSet): Library | undefined {
  for (const name of Object.keys(PROBES)) {
    const found = libraries.find(({ device, instruction_set }) => device === "wasm" && instruction_set === name);
    if (found !== undefined && has(name)) return found;
  }
  return undefined;
}

/**
 * Choose the library for the processor.
 *
 * Throws UserError if the bundle has none, if the browser has no vectors, or if the model does not fit into memory.
 */
export function openProcessor({ libraries, memory }: Manifest, has = hasInstructionSet): OpenDevice {
  const own = libraries.filter(({ device }) => device === "wasm");
  if (!own.length) {
    const remedy = "use a browser and a machine with WebGPU, or build the bundle with --cpu portable";
    throw new UserError("bundle", "no library for processors", "one", remedy, "bad-bundle");
  }
  const library = processorLibrary(own, has);
  if (library === undefined) {
    const wanted = own.map(({ instruction_set }) => instruction_set).join(" or ");
    const remedy = "use Chrome or Edge 91, Firefox 89, Safari 16.4 or newer";
    throw new UserError("WebAssembly", "a browser without its SIMD instructions", wanted, remedy, "no-simd");
  }
  const { resident, reduced } = memory[library.file];
  const least = Math.min(resident.peak_bytes, reduced.peak_bytes);
  if (least > PROCESSOR_MEMORY_BYTES) {
    throw new UserError(
      "WebAssembly's memory",
      `${gigabytes(PROCESSOR_MEMORY_BYTES)}`,
      `${gigabytes(least)} for the model`,
      "use a browser and a machine with WebGPU, or build smaller pictures or a smaller model",
      "too-large",
    );
  }
  return {
    library,
    description: `the processor, with ${library.instruction_set}`,
    maxBufferBytes: PROCESSOR_MEMORY_BYTES / BUFFERS_PER_HEAP, // what decides between the two modes of memory
  };
}
