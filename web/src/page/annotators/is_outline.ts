/** Tell a picture that is ready as a control image from one that is not. */

import type { Image } from "../../worker";

/** Return whether a picture already shows light lines on black: most of it is dark, and none of it coloured. */
export function isOutline({ data }: Image): boolean {
  let dark = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [low, high] = [Math.min(data[i], data[i + 1], data[i + 2]), Math.max(data[i], data[i + 1], data[i + 2])];
    if (high - low > 64) return false;
    if (high < 64) dark++;
  }
  return dark >= 0.75 * (data.length / 4);
}
