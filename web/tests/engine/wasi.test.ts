import { expect, test, vi } from "vitest";
import { createWasi } from "../../src/engine/wasi";

/** A started host: its WASI functions, the memory they work on and what was logged. */
function start() {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const lines: string[] = [];
  const errors: string[] = [];
  const provider = createWasi(
    (line) => lines.push(line),
    (line) => errors.push(line),
  );
  const initialize = vi.fn();
  provider.start({ exports: { memory, _initialize: initialize } });
  const wasi = provider.imports.wasi_snapshot_preview1 as Record<string, (...args: unknown[]) => number>;
  const write = (fd: number, text: string) => {
    const bytes = new TextEncoder().encode(text);
    new Uint8Array(memory.buffer).set(bytes, 100);
    new Uint32Array(memory.buffer, 0, 2).set([100, bytes.length]);
    return wasi.fd_write(fd, 0, 1, 8);
  };
  return { wasi, memory, lines, errors, write, initialize };
}

test("the library is initialised once, when it starts", () => {
  expect(start().initialize).toHaveBeenCalledTimes(1);
});

test("output is logged in whole lines", () => {
  const { write, lines, memory } = start();
  expect(write(1, "one\ntw")).toBe(0);
  expect(lines).toEqual(["one"]);
  write(1, "o\n");
  expect(lines).toEqual(["one", "two"]);
  expect(new Uint32Array(memory.buffer)[2]).toBe(2); // bytes that the last call wrote
});

test("errors go their own way and do not mix with half a line of output", () => {
  const { write, lines, errors } = start();
  write(1, "out");
  write(2, "bad\n");
  write(1, "put\n");
  expect([lines, errors]).toEqual([["output"], ["bad"]]);
});

test("memory that has grown is read where it is now", () => {
  const { write, memory, lines } = start();
  memory.grow(1);
  expect(write(1, "after\n")).toBe(0);
  expect(lines).toEqual(["after"]);
});

test("a library that exits throws", () => {
  expect(() => start().wasi.proc_exit(3)).toThrow("exit code 3");
});
