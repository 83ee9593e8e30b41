/** The GPU's own clock, one for each device: it wraps the device's encoders. */

import { PassClock } from "../pass_clock.mjs";
import type { Clock } from "./job";

const clocks = new WeakMap<GPUDevice, PassClock>();

/** Return the clock of a device that has the feature timestamp-query, always the same one. */
export function passClock(device: GPUDevice): Clock | undefined {
  if (!device.features.has("timestamp-query")) return undefined;
  const clock = clocks.get(device) ?? new PassClock(device);
  clocks.set(device, clock);
  return clock;
}
