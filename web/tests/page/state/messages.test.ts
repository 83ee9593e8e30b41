import { afterEach, expect, test } from "vitest";
import { Messages } from "../../../src/page/state/messages";
import { language, t } from "../../../src/page/text";
import { de } from "../../../src/page/text/de";
import { PageError } from "../../../src/page/text/page_error";
import { type ErrorCode, UserError } from "../../../src/worker";

const CODES: readonly ErrorCode[] = [
  ...(["bad-request", "bad-bundle", "bundle-changed", "no-connection", "insecure-page", "no-webgpu"] as const),
  ...(["no-adapter", "gpu-lacks", "no-simd", "too-large", "gpu-memory-full", "device-lost", "not-finite"] as const),
  "no-worker",
];

afterEach(() => {
  language.value = "en";
});

function said(error: unknown) {
  const messages = new Messages();
  messages.error(error, "photo");
  return messages.list.value[0];
}

test.each(CODES)("an error of the engine with code %s is said in German, with its own words below", (code) => {
  language.value = "de";
  const message = said(new UserError("GPU memory", "1 GB", "2 GB", "close other tabs", code));
  expect(message.text).toEqual([de.errorsByCode[code]]);
  expect(message.original).toBe("got 1 GB, wanted 2 GB. Close other tabs.");
});

test("in English the engine's own words are enough", () => {
  const message = said(new UserError("GPU memory", "1 GB", "2 GB", "close other tabs", "gpu-memory-full"));
  expect(message).toMatchObject({ subject: "GPU memory", text: ["got 1 GB, wanted 2 GB.", "Close other tabs."] });
  expect(message.original).toBeUndefined();
});

test("what the page itself has found is said in the page's language", () => {
  language.value = "de";
  const message = said(new PageError(t.value.camera, t.value.cameraErrors.missing));
  expect(message.text[0]).toBe("gefunden: keine Kamera; gebraucht: eine an diesem Gerät.");
  expect(message.original).toBeUndefined();
});
