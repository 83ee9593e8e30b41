import { afterEach, expect, test } from "vitest";
import { noticeOf } from "../../../src/engine/notices";
import { cameraError } from "../../../src/page/camera/camera";
import { Messages } from "../../../src/page/state/messages";
import { language, t } from "../../../src/page/text";
import { de } from "../../../src/page/text/de";
import { PageError } from "../../../src/page/text/page_error";
import { type ErrorCode, UserError } from "../../../src/worker";

const CODES: readonly Exclude<ErrorCode, "aborted" | "bug">[] = [
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
  expect(message.text).toEqual([de.errorsByCode?.[code]]);
  expect(message.original).toBe("got 1 GB, wanted 2 GB. Close other tabs.");
});

test.each([
  ["GPU memory", "Grafikspeicher", "got none, wanted it. Wait."],
  ["padding mask crop", "Raum um die Maske", "got none, wanted it. Wait."],
  ["https://site.example/manifest.json", "https://site.example/manifest.json", "got none, wanted it. Wait."],
  ["unet, step 1 of 2", undefined, "Unet, step 1 of 2: got none, wanted it. Wait."],
])("an error about %s is in German about %s", (subject, told, original) => {
  language.value = "de";
  const message = said(new UserError(subject, "none", "it", "wait"));
  expect([message.subject, message.original]).toEqual([told, original]);
});

test("an error about an option is about the label of its field, in both languages", () => {
  const error = new UserError("strength", "2", "a number from 0 to 1", "choose another number");
  const subjects = ["en", "de"].map((code) => {
    language.value = code;
    return said(error).subject;
  });
  expect(subjects).toEqual(["Change", "Änderung"]);
});

test("a notice of the engine is said in the page's language, and names what it is about", () => {
  const notice = noticeOf("prompt-cut", { subject: "negative prompt", tokens: 77, cutText: "navy" });
  const told = ["en", "de"].map((code) => {
    language.value = code;
    const messages = new Messages();
    messages.notice(notice);
    return messages.list.value[0].text[0];
  });
  expect(told).toEqual([
    "Negative prompt: longer than 77 tokens, this end was cut: “navy”",
    "Was nicht ins Bild soll: länger als 77 Token, dieses Ende fiel weg: „navy“",
  ]);
});

test("in English the engine's own words are enough", () => {
  const message = said(new UserError("GPU memory", "1 GB", "2 GB", "close other tabs", "gpu-memory-full"));
  expect(message).toMatchObject({ subject: "GPU memory", text: ["got 1 GB, wanted 2 GB.", "Close other tabs."] });
  expect(message.original).toBeUndefined();
});

test("what the page itself has found is said in the page's language", () => {
  language.value = "de";
  const message = said(
    new PageError(
      () => t.value.camera,
      () => t.value.cameraErrors.missing,
    ),
  );
  expect(message.text[0]).toBe("gefunden: keine Kamera; gebraucht: eine an diesem Gerät.");
  expect(message.original).toBeUndefined();
});

test("a sentence begins with a capital letter, also one with a dot on it", () => {
  language.value = "de";
  expect(said(cameraError("insecure")).text.at(-1)).toMatch(/^Öffnen Sie/);
  language.value = "en";
  expect(said(new UserError("maxBufferSize", "1", "2", "wait"))).toMatchObject({
    subject: "maxBufferSize", // a name stays
    text: ["got 1, wanted 2.", "Wait."],
  });
});

test.each([
  ["a model of the visitor's", new PageError("two pictures.onnx", () => t.value.onnxErrors.file("text"))],
  ["a model without an ending", new PageError("two pictures", () => t.value.onnxErrors.file("text"))],
  ["a file in a folder", new UserError("my model/manifest.json", "nothing", "a manifest", "wait", "bad-bundle")],
  ["a file of a bundle", new UserError("circles-float32.wasm", "nothing", "a library", "wait", "bundle-changed")],
])("the name of %s stays as it is where a message begins with it", (_, error) => {
  for (const code of ["en", "de"]) {
    language.value = code;
    expect(said(error).subject).toBe(error.subject);
  }
});

test("a message that begins with a word before a file's name begins with a capital letter", () => {
  const about = () => `${t.value.subjects.photo} two pictures.png`;
  expect(said(new PageError(about, () => t.value.noPictureFile)).subject).toBe("Photo two pictures.png");
});

test("what was told is said in the language that is chosen later, each message under its own number", () => {
  const messages = new Messages();
  messages.notice(noticeOf("scaled", { subject: "photo", from: "64x48", to: "32x32", how: "cropped" }));
  messages.notice(() => t.value.linkInAddress);
  messages.error(cameraError("missing"), "photo");
  messages.error(new UserError("GPU memory", "1 GB", "2 GB", "close other tabs", "gpu-memory-full"));
  const [english, ids] = [messages.list.value, messages.list.value.map(({ id }) => id)];
  language.value = "de";
  expect(messages.list.value.map(({ text }) => text[0])).toEqual([
    "Foto: 64x48 wurde auf 32x32 gebracht und ringsum beschnitten.",
    de.linkInAddress,
    "gefunden: keine Kamera; gebraucht: eine an diesem Gerät.",
    de.errorsByCode?.["gpu-memory-full"],
  ]);
  expect(messages.list.value.map(({ id }) => id)).toEqual(ids);
  expect(new Set(ids).size).toBe(4);
  language.value = "en";
  expect(messages.list.value).toEqual(english);
});

test("a notice is about what the page calls its subject, in both languages", () => {
  const messages = new Messages();
  const notice = noticeOf("transparency", { subject: "control image" });
  messages.notice(notice, "request", () => t.value.controlImageOf("Depth"));
  const told = ["en", "de"].map((code) => {
    language.value = code;
    return messages.list.value[0].text[0];
  });
  expect(told).toEqual([
    "Control image of Depth: its transparency was composited on black",
    "Steuerbild „Depth“: Was durchsichtig war, wurde auf Schwarz gesetzt.",
  ]);
});
