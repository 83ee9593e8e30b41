import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PASS_THROUGH } from "../../../src/page/annotators/annotation";
import type { Model } from "../../../src/page/models/catalogue";
import { openOwn } from "../../../src/page/models/own_model";
import { Gallery } from "../../../src/page/state/gallery";
import { Models } from "../../../src/page/state/models";
import { Run } from "../../../src/page/state/run";
import { Studio } from "../../../src/page/state/studio";
import { language } from "../../../src/page/text";
import {
  type ControlNetEngine,
  createEngine,
  type GenerateRequest,
  type Manifest,
  UserError,
} from "../../../src/worker";
import { LINES, makeManifest } from "../../engine/sample_bundle";
import { blank, stubBrowser } from "../drawing/fake_canvas";

vi.mock("../../../src/worker", async (load) => ({ ...(await load<object>()), createEngine: vi.fn() }));
/** An annotator that takes its time. */
vi.mock("../../../src/page/annotators/annotate", () => ({
  annotate: async (image: { data: Uint8ClampedArray<ArrayBuffer> }) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { ...image, data: image.data.map(() => 255) };
  },
}));

const sample = makeManifest();
const { unet } = sample.components;
const latents = { name: "sample", shape: [1, 4, 2, 3], dtype: "float32" };
/** A manifest with ControlNets of these kinds, which are their names, too. */
const manifestOf = (name: string, kinds: readonly string[], variants: unknown[] = []): Manifest =>
  ({
    ...sample,
    model: { ...sample.model, name },
    components: { ...sample.components, unet: { ...unet, inputs: [latents, ...unet.inputs] } },
    controlnets: kinds.map((kind) => ({ ...LINES, name: kind, kind })),
    variants,
  }) as Manifest;
const modelOf = (name: string) => ({ url: `./${name}/`, name, mirrors: [] }) as unknown as Model;

const mine = { url: "https://site.example/mine/", name: "mine" };

let studio: Studio;
let models: Models;
let run: Run;
/** What the host has. */
let manifest: Manifest;
const generate = vi.fn(async (request: GenerateRequest) => ({
  ...blank(24, 16),
  settings: { prompt: "", seed: request.seed, numInferenceSteps: 2 },
  metadata: {},
}));
const names = () => studio.controls.value.map(({ controlnet }) => controlnet.value);
const notices = () => studio.messages.list.value.map(({ text }) => text.join(" "));

beforeEach(() => {
  stubBrowser();
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("offline")));
  generate.mockClear();
  vi.mocked(createEngine).mockImplementation(async ({ onManifest }) => {
    onManifest?.(manifest);
    const info = { manifest, samplers: ["ddim"], runsOn: "gpu" };
    const engine = { info, generate, stats: async () => ({}), unload: async () => {} };
    return engine as unknown as ControlNetEngine;
  });
  studio = new Studio();
  models = new Models();
  run = new Run(studio, models, new Gallery());
});

afterEach(() => {
  vi.unstubAllGlobals();
  language.value = "en";
});

/** Open a model. */
async function open(opened: Manifest): Promise<void> {
  manifest = opened;
  await models.open();
  models.choose(modelOf(opened.model.name));
  await vi.waitFor(() => expect(studio.engine.value?.manifest).toBe(opened));
}

test("of two units, the one that takes part goes over to a model with one ControlNet", async () => {
  await open(manifestOf("doodle", ["scribble", "color"]));
  studio.addControl();
  const [scribble, color] = studio.controls.value;
  scribble.enabled.value = false;
  await open(manifestOf("rings", ["canny"]));
  expect(studio.controls.value).toEqual([color]);
  expect([color.enabled.value, color.controlnet.value]).toEqual([true, "canny"]);
});

test("of two units that take part, the one whose ControlNet the other model has goes over", async () => {
  await open(manifestOf("doodle", ["color", "scribble"]));
  studio.addControl();
  const [, scribble] = studio.controls.value;
  await open(manifestOf("sketches", ["scribble"]));
  expect(studio.controls.value).toEqual([scribble]);
});

test("a unit keeps a ControlNet that the other model has, whatever the unit before it used", async () => {
  await open(manifestOf("pair", ["canny", "scribble"]));
  studio.addControl();
  expect(names()).toEqual(["canny", "scribble"]);
  await open(manifestOf("doodle", ["scribble", "color"]));
  expect(names()).toEqual(["color", "scribble"]);
});

test("an engine that is loaded anew draws the size that was chosen; another model draws its own", async () => {
  const larger = [{ width: 48, height: 32, chunks: 1, functions: {} }];
  await open(manifestOf("doodle", ["scribble"], larger));
  studio.setSize({ width: 48, height: 32 });
  studio.memory.value = "reduced";
  await run.generate();
  expect(createEngine).toHaveBeenLastCalledWith(expect.objectContaining({ memory: "reduced" }));
  expect(generate.mock.lastCall?.[0]).toMatchObject({ width: 48, height: 32 });
  await open(manifestOf("other", ["scribble"], larger));
  expect(studio.request.size.value).toEqual({ width: 24, height: 16 });
});

test("a board whose annotator works is not called empty, and its notices are of the model's size", async () => {
  manifest = manifestOf("doodle", ["canny"]);
  const photo = { ...blank(300, 200), data: new Uint8ClampedArray(4 * 300 * 200).fill(255) };
  studio.controls.value[0].drawing.open(photo, { ...PASS_THROUGH, name: "canny" });
  await run.generate();
  expect(generate).toHaveBeenCalledOnce();
  expect(notices().filter((text) => text.includes("empty"))).toEqual([]);
  expect(notices()).toEqual(["Control image: 300x200 was scaled to cover 24x16"]);
  studio.controls.value[0].drawing.clear();
  await run.generate();
  expect(notices()).toEqual([expect.stringContaining("empty")]);
});

test("of two boards, the message says whose picture was scaled, and in which language it is read", async () => {
  await open(manifestOf("doodle", ["scribble", "color"]));
  studio.addControl();
  const [scribble, color] = studio.controls.value;
  scribble.drawing.open({ ...blank(24, 16), data: new Uint8ClampedArray(4 * 24 * 16).fill(255) });
  color.drawing.open({ ...blank(300, 200), data: new Uint8ClampedArray(4 * 300 * 200).fill(255) });
  await run.generate();
  expect(notices()).toEqual(["Control image of Colour grid: 300x200 was scaled to cover 24x16"]);
  language.value = "de";
  expect(notices()).toEqual(["Steuerbild „Farbraster“: 300x200 wurde auf 24x16 gebracht."]);
});

test("the status line is in the language that is chosen later", async () => {
  await open(manifestOf("doodle", ["scribble"]));
  expect(studio.status.value.text()).toBe("Ready");
  language.value = "de";
  expect(studio.status.value.text()).toBe("Bereit");
  studio.request.seed.value = 3;
  await run.generate();
  expect(studio.status.value.text()).toMatch(/^Fertig in \d+,\d s, Startwert 3$/);
  language.value = "en";
  expect(studio.status.value.text()).toMatch(/^Done in \d+\.\d s with seed 3$/);
});

test("what a picture has brought along goes over to a model that offers it; what is left out is told", async () => {
  const larger = [{ width: 48, height: 32, chunks: 1, functions: {} }];
  await open(manifestOf("doodle", ["scribble"], larger));
  const others = { clipSkip: 1, hiresScale: 2, hiresStrength: 0.5, eta: 0.5 };
  studio.request.others.value = others;
  await open(manifestOf("large", ["scribble"], larger));
  expect([studio.request.others.value, notices()]).toEqual([others, []]);
  await open(manifestOf("small", ["scribble"]));
  expect(studio.request.others.value).toEqual({ clipSkip: 1, eta: 0.5 });
  expect(notices()).toEqual(["This model does not offer: Hires scale, Hires strength."]);
  await run.generate();
  expect(generate.mock.lastCall?.[0].hiresScale).toBeUndefined();
});

test("of two boards, the message says which one is empty", async () => {
  await open(manifestOf("doodle", ["scribble", "color"]));
  studio.addControl();
  await run.generate();
  expect(notices()).toEqual(["The drawing board of Colour grid is empty: nothing in the picture will follow it."]);
});

test.each([
  ["en", "The model mine is in the list now. A picture is being drawn: open the model when the picture is finished."],
  ["de", "Das Modell mine steht jetzt in der Liste. Gerade wird gemalt: Öffnen Sie es, wenn das Bild fertig ist."],
])("an own model that comes while a picture is drawn waits in the list, with one line (%s)", async (code, text) => {
  language.value = code;
  await open(manifestOf("doodle", ["scribble"]));
  const doodle = models.current.value;
  let finish: () => void = () => {};
  const picture = await generate({ seed: 1 } as GenerateRequest);
  generate.mockImplementationOnce(() => new Promise((resolve) => (finish = () => resolve(picture))));
  const drawing = run.generate();
  await vi.waitUntil(() => generate.mock.calls.length === 2);
  openOwn(studio, models, mine, "models");
  expect([models.current.value, studio.engine.value?.manifest]).toEqual([doodle, manifest]);
  expect(models.list.value.at(-1)).toMatchObject({ name: "mine", isOwn: true });
  expect(studio.messages.list.value).toMatchObject([{ kind: "notice", place: "models", text: [text] }]);
  finish();
  await drawing;
  expect(studio.result.value).toBe(picture);
  openOwn(studio, models, mine, "models");
  expect(models.current.value?.name).toBe("mine");
  await vi.waitUntil(() => studio.engine.value !== undefined);
});

test("an own model that did not load is loaded again when it is added again", async () => {
  manifest = manifestOf("doodle", ["scribble"]);
  await models.open();
  vi.mocked(createEngine).mockRejectedValueOnce(new UserError("own bundle", "nothing", "its files", "drop it again"));
  openOwn(studio, models, mine, "models");
  await vi.waitUntil(() => !studio.status.value.isBusy);
  expect(notices()).toEqual([expect.stringContaining("got nothing")]);
  openOwn(studio, models, mine, "models");
  await vi.waitUntil(() => studio.engine.value !== undefined);
  expect(notices()).toEqual([]);
});

test("a sampler of the last visit that the model no longer has is told, and the default takes its place", async () => {
  await models.open();
  studio.request.sampler.value = "plms";
  manifest = manifestOf("doodle", ["scribble"]);
  run.load();
  await vi.waitUntil(() => studio.engine.value !== undefined);
  expect(studio.request.sampler.value).toBe(manifest.samplers.default);
  expect(notices()).toEqual(["This model has no sampler plms."]);
});
