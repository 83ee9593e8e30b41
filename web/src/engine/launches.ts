/**
 * Fewer calls of WebGPU for each launch of a kernel, without a change to TVM's web runtime.
 *
 * For every launch the runtime begins a compute pass, writes a uniform buffer and creates a bind group. A step launches
 * hundreds of kernels, the same ones with the same buffers as the step before, since memory is planned when a bundle is
 * built. This alters the device before the runtime gets it:
 *
 *  - A compute pass stays open until another command of its encoder, or the end of the encoder. The order of the launches
 *    stays, and so do the barriers between them: each dispatch is a usage scope of its own, in one pass as in many
 *    (https://www.w3.org/TR/webgpu/#programming-model-synchronization).
 *  - A bind group is kept and used again for the same layout, buffers and uniform content.
 *  - A uniform buffer that the runtime creates holds its content on the host. Launches with equal content read one buffer
 *    on the device, which is written once.
 *
 * What the launches compute does not change by a bit. `npm run bench:launches` measures what this saves.
 */

import { keepBindGroups } from "./bind_groups.ts";

/** Every command that an open compute pass must end before. */
const OTHER_COMMANDS = [
  "beginRenderPass",
  "copyBufferToBuffer",
  "copyBufferToTexture",
  "copyTextureToBuffer",
  "copyTextureToTexture",
  "clearBuffer",
  "resolveQuerySet",
  "writeTimestamp",
  "pushDebugGroup",
  "popDebugGroup",
  "insertDebugMarker",
  "finish",
] as const;

/**
 * Make launches on `device` cheaper.
 *
 * A uniform buffer is read as it is when its bind group is created. The runtime writes it before, and not again until the
 * launch is submitted; an attempt throws.
 *
 * @param timesLaunches whether each launch keeps a compute pass of its own. That is so on a device with the feature
 *   timestamp-query: nobody asks for it but to time passes.
 */
export function easeLaunches(device: GPUDevice, timesLaunches = device.features.has("timestamp-query")): void {
  if (!timesLaunches) joinPasses(device);
  keepBindGroups(device);
}

function joinPasses(device: GPUDevice): void {
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    let open: GPUComputePassEncoder | undefined;
    let endOpen = () => {};
    const close = () => {
      if (open === undefined) return;
      open = undefined;
      endOpen();
    };
    encoder.beginComputePass = (passDescriptor) => {
      if (passDescriptor !== undefined) {
        close();
        return beginComputePass(passDescriptor);
      }
      if (open === undefined) {
        open = beginComputePass();
        endOpen = open.end.bind(open);
        open.end = () => {};
      }
      return open;
    };
    const commands = encoder as unknown as Record<string, ((...parameters: unknown[]) => unknown) | undefined>;
    for (const name of OTHER_COMMANDS) {
      const command = commands[name]?.bind(encoder);
      if (command === undefined) continue; // no browser has them all
      commands[name] = (...parameters) => {
        close();
        return command(...parameters);
      };
    }
    return encoder;
  };
}
