import { expect, test } from "vitest";
import { checkCallbacks, checkOptions } from "../../src/engine/interface";

test("options may have their own keys only", () => {
  expect(() => checkOptions({ bundleUrl: "./", memory: undefined, signal: undefined })).not.toThrow();
  expect(() => checkOptions({ bundleURL: "./" } as never)).toThrow(
    "key of the options: got 'bundleURL', wanted one of bundleUrl, memory, onManifest, onProgress, signal; rename it",
  );
});

test("callbacks may have their own keys only", () => {
  expect(() => checkCallbacks({ onStep: undefined, onNotice: undefined, signal: undefined })).not.toThrow();
  expect(() => checkCallbacks({ onProgress: () => {} } as never)).toThrow(
    "key of the callbacks: got 'onProgress', wanted one of onStep, onNotice, signal; rename it or leave it out",
  );
  expect(() => checkCallbacks((() => {}) as never)).toThrow("callbacks: got () => {}, wanted an object");
});
