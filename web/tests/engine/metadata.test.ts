import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readInfotext } from "../../src/engine/infotext";
import { readSettings, toMetadata } from "../../src/engine/metadata";
import { encodePng, readTexts } from "../../src/engine/png";
import type { Settings } from "../../src/engine/request";

interface Fixture {
  written: { settings: Record<string, unknown>; model: string; texts: Record<string, string> }[];
  texts: { text: string; options: Record<string, unknown>; notices: string[] }[];
  files: { png: string; texts: Record<string, string> | null }[];
}
/** Python's tests read the same file. */
const fixture = JSON.parse(
  readFileSync(new URL("../../../tests/fixtures/metadata.json", import.meta.url), "utf8"),
) as Fixture;
const SHA256 = "0123456789abcdef";

const camelCase = (record: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(record).map(([name, value]) => [name.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), value]),
  );
const settingsOf = (record: Record<string, unknown>) => camelCase(record) as unknown as Settings;
const pixel = { width: 1, height: 1, data: Uint8ClampedArray.of(1, 2, 3, 255) };
const pngOf = async (texts: Record<string, string>) =>
  new Uint8Array(await (await encodePng(pixel, texts)).arrayBuffer());

describe.each(fixture.written)("the settings of $model", ({ settings, model, texts }) => {
  test("become the texts that Python writes", () => {
    expect(toMetadata(settingsOf(settings), model, SHA256)).toEqual(texts);
  });

  test("come back from the file", async () => {
    const set = Object.fromEntries(Object.entries(camelCase(settings)).filter(([, value]) => value !== null));
    expect(await readSettings(await pngOf(texts))).toEqual({
      options: set,
      model,
      bundleSha256: SHA256,
      notices: [],
    });
  });
});

test.each(fixture.texts)("web UI's text is read: $text", ({ text, options, notices }) => {
  const read = readInfotext(text);
  expect({ ...read, notices: read.notices.map((notice) => notice.text) }).toEqual({
    options: camelCase(options),
    notices,
  });
});

test.each(fixture.files)("every kind of text chunk is read: $texts", async ({ png, texts }) => {
  const data = Uint8Array.from(Buffer.from(png, "base64"));
  if (texts === null) await expect(readTexts(data, "photo")).rejects.toThrow("photo: got a file that is not PNG");
  else expect(await readTexts(data)).toEqual(texts);
});

test.each([
  ["café", "tEXt"],
  ["金", "iTXt"],
])("web UI's text %s has the kind of chunk that its readers know: %s", async (text, kind) => {
  const data = Buffer.from(await pngOf({ parameters: text }));
  expect(data.includes(`${kind}parameters\0`, 0, "latin1")).toBe(true);
  expect(await readTexts(Uint8Array.from(data))).toEqual({ parameters: text });
});

test("a picture without settings is refused", async () => {
  const foreign = await pngOf({ Software: "another program", parameters: "no settings" });
  await expect(readSettings(foreign, "photo")).rejects.toThrow(
    "photo: got a PNG file without settings, wanted a picture that this program or Stable Diffusion web UI has made",
  );
  const damaged = await pngOf({ "mlc-controlnet": "[]" });
  await expect(readSettings(damaged, "photo")).rejects.toThrow("photo: got a text mlc-controlnet that is no record");
});

test("what cannot be used is left out with a notice", async () => {
  const record = { prompt: "7", seed: "-1", sharpness: "1", strength: "0.5", model: "x" };
  expect(await readSettings(await pngOf({ "mlc-controlnet": JSON.stringify(record) }))).toMatchObject({
    options: { prompt: "7", strength: 0.5 },
    notices: [
      { code: "unknown-option", text: "sharpness is not known here and was left out" },
      { code: "unusable-value", text: "seed -1 cannot be used and was left out" },
    ],
  });
});

test("a prompt that is a number comes back as a text", async () => {
  const record = { prompt: "1", negative_prompt: "2", prompt_2: "3", negative_prompt_2: "4" };
  const options = { prompt: "1", negativePrompt: "2", prompt2: "3", negativePrompt2: "4" };
  expect(await readSettings(await pngOf({ "mlc-controlnet": JSON.stringify(record) }))).toMatchObject({ options });
});
