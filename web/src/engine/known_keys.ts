/** The keys of the objects that a site passes in. Without this check, a script without types could misspell one unnoticed. */

import { UserError } from "./errors.ts";

/** Throws UserError if `given` is not an object or has a key that is not in `keys`; `subject` names the object. */
export function checkKeys(subject: string, given: unknown, keys: readonly string[]): void {
  if (typeof given !== "object" || given === null) {
    throw new UserError(subject, String(given), "an object", `pass for example { ${keys[0]}: … }`);
  }
  for (const key of Object.keys(given)) {
    if (keys.includes(key)) continue;
    throw new UserError(`key of the ${subject}`, `'${key}'`, `one of ${keys.join(", ")}`, "rename it or leave it out");
  }
}
