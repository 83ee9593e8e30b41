/** Names of downloads. */

import type { Settings } from "../../worker";

/** Make a file name of the prompt's words and the seed, such as "gold-circle-7.png". */
export function fileName({ prompt, seed }: Pick<Settings, "prompt" | "seed">): string {
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  return `${words.join("-").slice(0, 60)}-${seed}.png`;
}
