import { expect, test } from "vitest";
import { checkBatch, checkCallbacks, checkOptions } from "../../src/engine/interface";

test("options may have their own keys only", () => {
  expect(() => checkOptions({ bundleUrl: "./", memory: undefined, signal: undefined })).not.toThrow();
  expect(() => checkOptions({ bundleURL: "./" } as never)).toThrow(
    "key of the options: got 'bundleURL', wanted one of bundleUrl, device, memory, onManifest, onNotice, onProgress, persist, signal; rename it",
  );
});

test("callbacks may have their own keys only", () => {
  expect(() => checkCallbacks({ onStep: undefined, onNotice: undefined, signal: undefined })).not.toThrow();
  expect(() => checkCallbacks({ onImage: () => {} } as never)).toThrow(
    "key of the callbacks: got 'onImage', wanted one of onStep, onNotice, onProgress, decodesPreviews, onQueue, signal; rename it or leave it out",
  );
  expect(() => checkCallbacks((() => {}) as never)).toThrow("callbacks: got () => {}, wanted an object");
});

test("several pictures have a key more, and a callback more", () => {
  const batch = { prompt: ["a", "b"], numImagesPerPrompt: 2, seed: [1, 2, 3, 4] };
  expect(() => checkBatch(batch, { onImage: () => {}, onStep: () => {} })).not.toThrow();
  expect(() => checkBatch({ ...batch, numImages: 2 } as never, {})).toThrow("key of the request: got 'numImages'");
  expect(() => checkBatch(batch, { onPicture: () => {} } as never)).toThrow("key of the callbacks: got 'onPicture'");
});
