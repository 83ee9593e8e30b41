import { expect, test } from "vitest";
import { codeOf, isAbort, UserError } from "../../src/engine/errors";

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
