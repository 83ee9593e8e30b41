/**
 * A mistake that the user can mend, in four parts; everything else that is thrown is a failure of ours.
 * The twin of mlc_controlnet/errors.py.
 */
export class UserError extends Error {
  override readonly name = "UserError";

  constructor(
    /** The thing at fault: a file, an option, a limit. */
    readonly subject: string,
    /** What it is. */
    readonly got: string,
    /** What it should be. */
    readonly wanted: string,
    /** What the user can do now. */
    readonly remedy: string,
  ) {
    super(`${subject}: got ${got}, wanted ${wanted}; ${remedy}`);
  }
}

/** True for the error that an AbortSignal causes: nothing is wrong, somebody pressed Cancel. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
