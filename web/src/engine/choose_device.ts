/**
 * Choose where a bundle runs: on the GPU in float16, on the GPU in float32, or on the processor.
 *
 * A software adapter is a processor that plays a GPU. The library for processors does the same work many times as fast, so it
 * takes the adapter's place wherever the bundle has one that this browser runs.
 */

import { isSoftware, type OpenDevice, openDevice } from "./device.ts";
import { checkOneOf, UserError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";
import { openProcessor } from "./processor.ts";

/** `auto`: the GPU, or the processor if there is no real GPU that can run the bundle. */
export type DeviceChoice = "gpu" | "cpu" | "auto";

/** A device, and why it was chosen. */
export interface ChosenDevice {
  readonly opened: OpenDevice;
  /** What runs the kernels. */
  readonly runsOn: "gpu" | "cpu";
  /** For readers: "a browser without WebGPU". */
  readonly reason: string;
}

/** Opens the GPU for one of the libraries. */
export type OpenGpu = typeof openDevice;

/**
 * Open the best device for a bundle, before anything large is fetched. `open` opens the GPU, or only looks what it can run.
 *
 * Throws UserError for an unknown choice, and if no device can run the bundle.
 */
export async function chooseDevice(
  manifest: Manifest,
  choice: DeviceChoice,
  gpu: GPU | undefined,
  open: OpenGpu = openDevice,
): Promise<ChosenDevice> {
  const onGpu = async (reason?: string): Promise<ChosenDevice> => {
    const opened = await open(manifest.libraries, gpu);
    return { opened, runsOn: "gpu", reason: reason ?? `a GPU that computes in ${opened.library.dtype}` };
  };
  checkOneOf("device", choice, ["gpu", "cpu", "auto"]);
  if (choice === "cpu") return onProcessor(manifest, "as asked");
  if (choice === "gpu") return onGpu("as asked");
  const hindrance = await hindranceOf(gpu);
  if (hindrance === undefined) {
    try {
      return await onGpu();
    } catch (error) {
      if (!(error instanceof UserError) || !runsOnProcessor(manifest)) throw error;
      return onProcessor(manifest, `${error.subject}: ${error.got}`);
    }
  }
  if (runsOnProcessor(manifest)) return onProcessor(manifest, hindrance.reason);
  if (hindrance.hasAdapter) return onGpu(hindrance.reason);
  // Both are missing. A bundle without a library for processors is told what WebGPU needs; else, what the processor lacks.
  const isForProcessors = manifest.libraries.some(({ device }) => device === "wasm");
  return isForProcessors ? onProcessor(manifest, hindrance.reason) : onGpu();
}

/** Say why the GPU is not the first choice; undefined if it is. */
async function hindranceOf(gpu: GPU | undefined): Promise<{ reason: string; hasAdapter: boolean } | undefined> {
  if (gpu === undefined) return { reason: "no WebGPU in this browser", hasAdapter: false };
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) return { reason: "no GPU that the browser may use", hasAdapter: false };
  if (isSoftware(adapter.info)) return { reason: "no GPU: the browser imitates one, slowly", hasAdapter: true };
  return undefined;
}

function runsOnProcessor(manifest: Manifest): boolean {
  try {
    openProcessor(manifest);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

function onProcessor(manifest: Manifest, reason: string): ChosenDevice {
  return { opened: openProcessor(manifest), runsOn: "cpu", reason };
}
