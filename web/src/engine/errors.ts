/**
 * What goes wrong, as types that a page can act on.
 *
 * The twin of UserError is in mlc_controlnet/errors.py.
 */

/**
 * The kind of an error: `codeOf(error)` gives it, of a UserError also `error.code`.
 *
 * - `bad-request`: an option, a prompt or a picture that cannot be used. Ask again with another one.
 * - `bad-bundle`: the address has no bundle, or one of another format version or another target.
 * - `bundle-changed`: a file is not the one that the manifest lists: damaged on its host, or a newer version is there.
 * - `no-connection`: the host does not answer, answers with 5xx, or the connection broke and stayed so.
 * - `insecure-page`: the page came over plain http from another machine.
 * - `no-webgpu`: the browser has no WebGPU.
 * - `no-adapter`: it has WebGPU and no GPU for it.
 * - `gpu-lacks`: the GPU has not the features or limits that the bundle needs.
 * - `no-simd`: the browser's WebAssembly has no vectors, which drawing on the processor needs.
 * - `too-large`: the model does not fit into WebAssembly's memory, and there is no GPU.
 * - `gpu-memory-full`: also with the least memory that the bundle can do with.
 * - `device-lost`: the GPU went away twice within a minute.
 * - `not-finite`: a component returned NaN or infinity, also in float32 if the bundle has it.
 * - `no-worker`: the worker's script did not start.
 * - `aborted`: the caller's signal ended the call.
 * - `bug`: anything else.
 *
 * After `bug`, unload the engine and create a new one. After the others it goes on; after `gpu-memory-full` the next call tries
 * again, for there may be room then.
 */
export type ErrorCode =
  | "bad-request"
  | "bad-bundle"
  | "bundle-changed"
  | "no-connection"
  | "insecure-page"
  | "no-webgpu"
  | "no-adapter"
  | "gpu-lacks"
  | "no-simd"
  | "too-large"
  | "gpu-memory-full"
  | "device-lost"
  | "not-finite"
  | "no-worker"
  | "aborted"
  | "bug";

/** A mistake or a failure that the user can correct, in four parts. Any other error is a bug. */
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
    /** The kind of error. */
    readonly code: ErrorCode = "bad-request",
  ) {
    super(`${subject}: got ${got}, wanted ${wanted}; ${remedy}`);
  }
}

/** Return the kind of any error that a call of the engine rejects with. */
export function codeOf(error: unknown): ErrorCode {
  if (error instanceof UserError) return error.code;
  return isAbort(error) ? "aborted" : "bug";
}

/** Throws UserError unless `value` is in `allowed`, which the message lists. */
export function checkOneOf(subject: string, value: unknown, allowed: readonly unknown[]): void {
  if (allowed.includes(value)) return;
  const got = typeof value === "string" ? `'${value}'` : String(value);
  throw new UserError(subject, got, `one of ${allowed.join(", ")}`, "choose one of these");
}

/** Run an action. After the signal's abort it rejects with an AbortError, also if the caller has given another reason. */
export async function abortable<T>(signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw signal?.aborted && error === signal.reason ? abortError(signal) : error;
  }
}

/** The AbortError of an aborted signal, whose reason is what the caller has given: a timeout, a word, anything. */
export function abortError({ reason }: AbortSignal): Error {
  if (isAbort(reason)) return reason;
  return new DOMException(`the call was aborted: ${reason instanceof Error ? reason.message : reason}`, "AbortError");
}

/** Return true for the error that an AbortSignal causes: nothing is wrong, the caller cancelled. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
