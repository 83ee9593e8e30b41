import { expect, test } from "vitest";
import { hasInstructionSet, openProcessor, PROCESSOR_MEMORY_BYTES, processorLibrary } from "../../src/engine/processor";
import { threadLimit } from "../../src/engine/threads";
import { MEMORY, makeLibrary, makeManifest } from "./sample_bundle";

const of = (instruction_set: string) => ({
  ...makeLibrary(),
  file: `circles-${instruction_set}.wasm`,
  device: "wasm",
  instruction_set,
});
const relaxed = of("wasm-relaxed-simd");
const plain = of("wasm-simd128");
const manifestOf = (...libraries: ReturnType<typeof of>[]) =>
  makeManifest(undefined, { libraries, memory: Object.fromEntries(libraries.map(({ file }) => [file, MEMORY])) });

test("this engine of JavaScript has vectors, and nobody has what there is no probe for", () => {
  expect(hasInstructionSet("wasm-simd128")).toBe(true);
  expect(hasInstructionSet("x86-64-v3")).toBe(false);
});

test("the best that the browser has is taken, in whatever order the bundle lists them", () => {
  expect(processorLibrary([plain, relaxed], () => true)).toBe(relaxed);
  expect(processorLibrary([relaxed, plain], (name) => name === "wasm-simd128")).toBe(plain);
  expect(processorLibrary([makeLibrary()], () => true)).toBeUndefined();
});

test("a browser without vectors is told what it lacks and which browser helps", () => {
  expect(() => openProcessor(manifestOf(relaxed, plain), () => false)).toThrow(
    /^WebAssembly: got a browser without its SIMD instructions, wanted wasm-relaxed-simd or wasm-simd128; use Chrome/,
  );
});

test("the mode of memory is reduced from the size on that memory has", () => {
  const { maxBufferBytes } = openProcessor(manifestOf(plain));
  expect(8 * maxBufferBytes).toBe(PROCESSOR_MEMORY_BYTES);
});

test("threads are for isolated pages, one a core up to eight", () => {
  expect([threadLimit(false, 16), threadLimit(true, 2), threadLimit(true, 64)]).toEqual([1, 2, 8]);
});
