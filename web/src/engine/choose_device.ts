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

/**
 * Why a device was chosen.
 *
 * - `asked`: the caller's choice.
 * - `gpu`: a GPU that runs the bundle.
 * - `no-webgpu`: the browser has no WebGPU.
 * - `no-adapter`: it has WebGPU and no GPU for it.
 * - `imitated`: it has only a software adapter.
 * - `gpu-lacks`: the GPU cannot run the bundle.
 */
export type DeviceReason = "asked" | "gpu" | "no-webgpu" | "no-adapter" | "imitated" | "gpu-lacks";

/** A reason with its text. */
interface Why {
  readonly reasonCode: DeviceReason;
  /** For readers: "no WebGPU in this browser". */
  readonly reason: string;
}

/** A device, and why it was chosen. */
export interface ChosenDevice extends Why {
  readonly opened: OpenDevice;
  /** What runs the kernels. */
  readonly runsOn: "gpu" | "cpu";
}

const ASKED: Why = { reasonCode: "asked", reason: "as asked" };

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
  const onGpu = async (why?: Why): Promise<ChosenDevice> => {
    const opened = await open(manifest.libraries, gpu);
    const usual: Why = { reasonCode: "gpu", reason: `a GPU that computes in ${opened.library.dtype}` };
    return { opened, runsOn: "gpu", ...(why ?? usual) };
  };
  checkOneOf("device", choice, ["gpu", "cpu", "auto"]);
  if (choice === "cpu") return onProcessor(manifest, ASKED);
  if (choice === "gpu") return onGpu(ASKED);
  const hindrance = await hindranceOf(gpu);
  if (hindrance === undefined) {
    try {
      return await onGpu();
    } catch (error) {
      if (!(error instanceof UserError) || !runsOnProcessor(manifest)) throw error;
      return onProcessor(manifest, { reasonCode: "gpu-lacks", reason: `${error.subject}: ${error.got}` });
    }
  }
  if (runsOnProcessor(manifest)) return onProcessor(manifest, hindrance.why);
  if (hindrance.hasAdapter) return onGpu(hindrance.why);
  // Both are missing. A bundle without a library for processors is told what WebGPU needs; else, what the processor lacks.
  const isForProcessors = manifest.libraries.some(({ device }) => device === "wasm");
  return isForProcessors ? onProcessor(manifest, hindrance.why) : onGpu();
}

/** Say why the GPU is not the first choice; undefined if it is. */
async function hindranceOf(gpu: GPU | undefined): Promise<{ why: Why; hasAdapter: boolean } | undefined> {
  if (gpu === undefined) {
    return { why: { reasonCode: "no-webgpu", reason: "no WebGPU in this browser" }, hasAdapter: false };
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) {
    return { why: { reasonCode: "no-adapter", reason: "no GPU that the browser may use" }, hasAdapter: false };
  }
  if (isSoftware(adapter.info)) {
    return { why: { reasonCode: "imitated", reason: "no GPU: the browser imitates one, slowly" }, hasAdapter: true };
  }
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

function onProcessor(manifest: Manifest, why: Why): ChosenDevice {
  return { opened: openProcessor(manifest), runsOn: "cpu", ...why };
}
