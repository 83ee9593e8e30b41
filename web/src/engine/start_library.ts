/** Start a library on the device that was opened for it: instantiate it, compile its kernels, fetch and upload its weights. */

import * as tvmjs from "@mlc-ai/web-runtime";
import { CommandLists } from "./command_lists.ts";
import { type BufferBytes, countBuffers, lostDevice, type OpenDevice, uncaughtError } from "./device.ts";
import type { Started } from "./executor.ts";
import type { Bundle } from "./load.ts";
import { freePool } from "./machine.ts";
import type { Memory } from "./memory.ts";
import { drawingComponents } from "./model_traits.ts";
import { Pipelines } from "./pipelines.ts";
import { type LoadOptions, withDownloadMeter } from "./progress.ts";
import { inScope } from "./tensor.ts";
import { type RunningLibrary, runLibrary } from "./threads.ts";
import { createWasi } from "./wasi.ts";
import { neededShards, Weights } from "./weights.ts";

/**
 * Start a library. Its weights are on the device afterwards, and its kernels are being compiled. Every file is checked
 * against its hash.
 *
 * What is returned owns the device. If this fails, it destroys the device. Without one, the processor runs all.
 */
export async function startLibrary(
  bundle: Bundle,
  { device, library }: OpenDevice,
  memory: Memory,
  options: LoadOptions = {},
): Promise<Started> {
  const { manifest } = bundle;
  const gpuBytes = device === undefined ? { live: 0, peak: 0 } : countBuffers(device);
  const ended = endOf(device, memory, gpuBytes, options.signal);
  let tvm: tvmjs.Instance | undefined;
  let running: RunningLibrary | undefined; // on the processor
  try {
    const drawing = drawingComponents(manifest);
    const needed = neededShards(manifest, drawing);
    const metered = withDownloadMeter(bundle, [library.file, ...needed.keys()], options);
    const wasm = await bundle.readFile(library.file, metered);
    const wasi = createWasi(console.info, console.error);
    if (device === undefined) running = await runLibrary(wasm, wasi);
    // Not its buffer, which may be larger than the file.
    tvm = running?.tvm ?? (await tvmjs.instantiate(wasm as unknown as ArrayBuffer, wasi, console.info));
    let lists: CommandLists | undefined;
    if (device !== undefined) {
      lists = new CommandLists(tvm, device);
      tvm.initWebGPU(device);
    }
    const target = device === undefined ? tvm.cpu() : tvm.webgpu();
    const vm = inScope(tvm, (scope) => scope.detachFromCurrentScope(scope.createVirtualMachine(target)));
    const pipelines =
      device && Pipelines.compile(tvm, vm.getInternalModule(), device, library, manifest, options.onProgress);
    const loaded = tvm;
    const freeWorkspace = () => (lists === undefined ? freePool(loaded) : lists.free());
    const weights = new Weights(tvm, target, vm, bundle, library, memory, freeWorkspace, pipelines);
    await Promise.race([ended, weights.fetch(needed, metered)]);
    // Now, so that a GPU that is full is found out at once.
    for (const name of drawing) await Promise.race([ended, weights.merge(name, () => target.sync())]);
    options.signal?.throwIfAborted();
    if (pipelines !== undefined) pipelines.onProgress = undefined; // what is still compiled, nobody waits for yet
    return { tvm, target, vm, bundle, library, weights, memory, device, pipelines, gpuBytes, lists, running };
  } catch (error) {
    running?.stop();
    tvm?.dispose();
    device?.destroy();
    throw error;
  }
}

/** Rejects when the device is lost or in error, or the signal aborts. Whoever has the device afterwards handles a later loss. */
function endOf(
  device: GPUDevice | undefined,
  memory: Memory,
  gpuBytes: BufferBytes,
  signal?: AbortSignal,
): Promise<never> {
  const ended = new Promise<never>((_, reject) => {
    device?.lost.then((info) => reject(lostDevice(info, memory, gpuBytes.live)));
    const listener = ({ error }: GPUUncapturedErrorEvent) => reject(uncaughtError(error, memory, gpuBytes.live));
    device?.addEventListener("uncapturederror", listener, { once: true });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  ended.catch(() => {});
  return ended;
}
