/** Browsers offer WebGPU, hashing and the Cache API only to pages from https or localhost. */

import { UserError } from "./errors.ts";

/** Throws UserError in a page that came over plain http from another machine. Node counts as secure. */
export function checkSecureContext(): void {
  if (typeof isSecureContext === "undefined" || isSecureContext) return;
  throw new UserError(
    "WebGPU",
    "a page served over plain http",
    "https or localhost",
    "open the page over https",
    "insecure-page",
  );
}
