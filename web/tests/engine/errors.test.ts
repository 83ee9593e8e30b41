import { expect, test } from "vitest";
import { abortable, codeOf, isAbort, UserError } from "../../src/engine/errors";

test("a user's error is told in one line of four parts", () => {
  const error = new UserError("steps", "0", "1 to 100", "choose one of these");
  expect(error.message).toBe("steps: got 0, wanted 1 to 100; choose one of these");
  expect(String(error)).toBe("UserError: steps: got 0, wanted 1 to 100; choose one of these");
});

test("an abort is told from a failure", () => {
  const controller = new AbortController();
  controller.abort();
  expect(isAbort(controller.signal.reason)).toBe(true);
  expect(isAbort(new Error("AbortError"))).toBe(false);
});

test("every error has a code", () => {
  expect(codeOf(new UserError("steps", "0", "1", "choose"))).toBe("bad-request");
  expect(codeOf(new UserError("GPU memory", "none", "1 GB", "close tabs", "gpu-memory-full"))).toBe("gpu-memory-full");
  expect(codeOf(new DOMException("cancelled", "AbortError"))).toBe("aborted");
  expect([codeOf(new Error("oh")), codeOf("oh")]).toEqual(["bug", "bug"]);
});

test.each<[string, unknown]>([
  ["no reason", undefined],
  ["a timeout", new DOMException("signal timed out", "TimeoutError")],
  ["a word", "the visitor has left"],
])("a call that the caller aborts with %s ends with an AbortError", async (_, reason) => {
  const controller = new AbortController();
  controller.abort(reason);
  const error = await abortable(controller.signal, async () => controller.signal.throwIfAborted()).catch((it) => it);
  expect(codeOf(error)).toBe("aborted");
  if (reason !== undefined)
    expect(error.message).toMatch(/^the call was aborted: (signal timed out|the visitor has left)$/);
});

test("another failure of an aborted call stays what it is", async () => {
  const failure = new UserError("steps", "0", "1", "choose");
  await expect(abortable(AbortSignal.abort("late"), () => Promise.reject(failure))).rejects.toBe(failure);
});
