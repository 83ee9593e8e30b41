/** A call's passes of denoising, and the latents that its caller passes back. Twin: mlc_controlnet/runtime/call.py. */

import type { FloatArray } from "./components.ts";
import type { Step } from "./denoising.ts";
import { UserError } from "./errors.ts";

/** A pass of denoising: it yields after every step and returns the last sample, float32 [1, C, h, w]. */
export type Pass = AsyncGenerator<Step, FloatArray, FloatArray | undefined>;

/** Let the steps of one of several passes count through: `before` steps came before it, all passes have `count`. */
export async function* numbered(steps: Pass, before: number, count: number): Pass {
  try {
    let result = await steps.next();
    while (!result.done) {
      const { value } = result;
      result = await steps.next(yield { ...value, index: before + value.index, count });
    }
    return result.value;
  } finally {
    await steps.return(new Float32Array()); // ends a pass that is left in the middle
  }
}

/** Throws UserError unless a caller's latents have the length of x. */
export function checkLike(x: FloatArray, latents: FloatArray): FloatArray {
  if (latents.length === x.length) return latents;
  throw new UserError("latents of the caller", `${latents.length} numbers`, `${x.length}`, "keep the shape");
}
