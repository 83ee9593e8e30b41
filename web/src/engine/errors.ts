/**
 * A mistake that the user can correct, in four parts. Any other error is a bug.
 * The twin of mlc_controlnet/errors.py.
 */
export class UserError extends Error {
  override readonly name = "UserError";

  constructor(
    /** The file, option or limit that is wrong. */
    readonly subject: string,
    /** The value found. */
    readonly got: string,
    /** The value or values that would be right. */
    readonly wanted: string,
    /** The action that helps the user now. */
    readonly remedy: string,
  ) {
    super(`${subject}: got ${got}, wanted ${wanted}; ${remedy}`);
  }
}

/** Throws UserError unless `value` is in `allowed`, which the message lists. */
export function checkOneOf(subject: string, value: unknown, allowed: readonly unknown[]): void {
  if (allowed.includes(value)) return;
  const got = typeof value === "string" ? `'${value}'` : String(value);
  throw new UserError(subject, got, `one of ${allowed.join(", ")}`, "choose one of these");
}

/** Return true for the error that an AbortSignal causes: nothing is wrong, the caller cancelled. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
