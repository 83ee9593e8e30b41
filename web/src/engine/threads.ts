/**
 * Run a library for processors: instantiate it over a shared memory and, where the page is cross-origin isolated, let workers
 * run parts of its kernels' loops. mlc_controlnet/toolchain/threads/parallel_launch.cc has the other side.
 *
 * A page that is not isolated may make a shared memory, but may not send it to a worker: there, one thread draws.
 */

import * as tvmjs from "@mlc-ai/web-runtime";
import type { LibraryProvider } from "./wasi.ts";

const PAGE_BYTES = 65536;
const INITIAL_PAGES = (32 << 20) / PAGE_BYTES;
/** What to try, the most first: a phone does not reserve what a library may grow to. mlc_controlnet/toolchain/link_wasm.py */
const MAXIMUM_PAGES = [2 ** 15, 2 ** 14, 2 ** 13];
/** As of the first thread. */
const STACK_BYTES = 1 << 20;
/** More threads wait for each other longer than they help: kernels divide their loops evenly. */
const MAX_THREADS = 8;
/** Milliseconds for workers to start. Later ones are not used. */
const PATIENCE_MS = 5000;

/** A library that runs, and its workers. */
export interface RunningLibrary {
  readonly tvm: tvmjs.Instance;
  readonly threads: number;
  /** End the workers. */
  stop(): void;
}

/** How many threads this page may have: 1 unless it is cross-origin isolated. */
export function threadLimit(
  isIsolated = globalThis.crossOriginIsolated === true,
  cores = globalThis.navigator?.hardwareConcurrency ?? 1,
): number {
  return isIsolated ? Math.max(1, Math.min(cores, MAX_THREADS)) : 1;
}

/** Instantiate a library, with `limit` threads if their workers start. `wasi` has its other imports. */
export async function runLibrary(
  wasm: BufferSource,
  wasi: LibraryProvider,
  limit = threadLimit(),
): Promise<RunningLibrary> {
  const module = await WebAssembly.compile(wasm);
  const memory = makeMemory();
  let exports: Exports | undefined;
  const tvm = new tvmjs.Instance(module, {
    imports: { ...wasi.imports, env: { memory: memory as never } },
    start: (instance: WebAssembly.Instance) => {
      exports = instance.exports as unknown as Exports;
      wasi.start(instance, memory);
    },
  } satisfies LibraryProvider as never);
  const workers = exports === undefined ? [] : await startWorkers(module, memory, exports, limit - 1);
  if (workers.length) exports?.mlc_use_threads(workers.length + 1);
  const stop = () => {
    for (const worker of workers) worker.terminate();
  };
  return { tvm, threads: workers.length + 1, stop };
}

interface Exports {
  mlc_thread_stack(bytes: number): number;
  mlc_use_threads(count: number): void;
}

function makeMemory(): WebAssembly.Memory {
  for (const maximum of MAXIMUM_PAGES) {
    try {
      return new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum, shared: true });
    } catch (error) {
      if (maximum === MAXIMUM_PAGES[MAXIMUM_PAGES.length - 1]) throw error;
    }
  }
  throw new Error("no memory was tried");
}

/** Start workers. If one of them does not start, as under a policy that forbids blob: scripts, none is used. */
async function startWorkers(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  exports: Exports,
  count: number,
): Promise<Worker[]> {
  if (count < 1) return [];
  const script = URL.createObjectURL(new Blob([`onmessage = ${runThread}`], { type: "text/javascript" }));
  const workers: Worker[] = [];
  try {
    const ready = Array.from({ length: count }, (_, i) => {
      const worker = new Worker(script, { name: `mlc-controlnet thread ${i + 2}` });
      workers.push(worker);
      const stack = exports.mlc_thread_stack(STACK_BYTES) + STACK_BYTES;
      return new Promise<void>((resolve, reject) => {
        worker.onmessage = () => resolve();
        worker.onerror = reject;
        worker.postMessage({ module, memory, stack, part: i + 1 });
      });
    });
    const late = new Promise<never>((_, reject) => setTimeout(reject, PATIENCE_MS));
    await Promise.race([Promise.all(ready), late]);
    return workers;
  } catch {
    for (const worker of workers) worker.terminate();
    return [];
  } finally {
    URL.revokeObjectURL(script);
  }
}

/** The whole script of a worker, so nothing outside it may be used: instantiate the library again and run its part of loops. */
function runThread({ data: { module, memory, stack, part } }: MessageEvent): void {
  const imports: Record<string, Record<string, unknown>> = { env: {} };
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    imports[from][name] = () => {
      throw new Error(`${name} was called by a thread that owns no TVM`);
    };
  }
  imports.env.memory = memory;
  // biome-ignore lint/suspicious/noExplicitAny: what the library exports
  const exports = new WebAssembly.Instance(module, imports as any).exports as any;
  exports.__stack_pointer.value = stack;
  postMessage("ready");
  for (;;) {
    try {
      exports.mlc_run_thread(part);
    } catch {
      exports.mlc_fail_thread();
      return;
    }
  }
}
