import { beforeEach, describe, expect, test, vi } from "vitest";
import { chooseDevice } from "../../src/engine/choose_device";
import { createEngine } from "../../src/engine/create_engine";
import { Engine } from "../../src/engine/engine";
import { UserError } from "../../src/engine/errors";
import { openBundle } from "../../src/engine/load";
import type { Library } from "../../src/engine/manifest";
import type { GenerateRequest } from "../../src/engine/request";
import { FILES, makeLibrary, makeManifest } from "./sample_bundle";

vi.mock("../../src/engine/engine", () => ({ Engine: { load: vi.fn() } }));
vi.mock("../../src/engine/choose_device", () => ({ chooseDevice: vi.fn() }));
vi.mock("../../src/engine/load", () => ({ openBundle: vi.fn() }));

/** What each picture comes to, in the order in which they are drawn: pixels, or an error. */
let outcomes: (number[] | Error)[];
let requests: GenerateRequest[];
vi.mock("../../src/engine/pipeline", () => ({
  ControlNetPipeline: class {
    // biome-ignore lint/correctness/useYield: these pictures have no steps
    async *generate(request: GenerateRequest) {
      requests.push(request);
      const outcome = outcomes.shift() as number[] | Error;
      if (outcome instanceof Error) throw outcome;
      return { width: 2, height: 1, data: Uint8ClampedArray.from(outcome) };
    }
  },
}));

const black = [0, 0, 0, 255, 0, 0, 0, 255];
const good = [9, 9, 9, 255, 0, 0, 0, 255];
const notFinite = new UserError("unet, step 1 of 2", "NaN", "finite numbers", "another seed", "not-finite");
const half = makeLibrary({ file: "circles-float16.wasm", dtype: "float16" });
const single = makeLibrary();
let notices: string[];
let unloaded: string[];

beforeEach(() => {
  [outcomes, requests, notices, unloaded] = [[], [], [], []];
  vi.resetAllMocks();
  vi.stubGlobal("navigator", {});
});

async function load(libraries: Library[]) {
  const sample = { name: "sample", shape: [1, 4, 2, 3], dtype: "float32" };
  const { components, ...rest } = makeManifest(FILES, { libraries });
  const manifest = { ...rest, components: { ...components, unet: { ...components.unet, inputs: [sample] } } };
  vi.mocked(openBundle).mockResolvedValue({
    url: "https://site.example/",
    manifest,
    sha256: "abc",
    readFile: async (path) => FILES[path],
    kept: async () => new Set<string>(),
    keep: async () => {},
  });
  vi.mocked(chooseDevice).mockImplementation(async ({ libraries: [library] }) => {
    const opened = { device: {} as GPUDevice, library, description: "acme", maxBufferBytes: 2 ** 30 };
    return { opened, runsOn: "gpu", reasonCode: "gpu", reason: "a GPU" };
  });
  vi.mocked(Engine.load).mockImplementation(async (_, { library }) => {
    const stats = () => ({ dispatches: 0, peakGpuMebibytes: 0, gpuBytes: 0 });
    return { unload: () => unloaded.push(library.dtype), stats } as unknown as Engine;
  });
  return createEngine({ bundleUrl: "./" });
}

const request = { prompt: "gold" } as GenerateRequest;
const callbacks = { onNotice: (notice: string) => notices.push(notice) };

describe("a picture in float16 that is", () => {
  test.each<[string, number[] | Error]>([
    ["black", black],
    ["of one colour", [7, 7, 7, 255, 7, 7, 7, 255]],
    ["not finite", notFinite],
  ])("%s is drawn again in float32, once, with the same seed and a notice", async (_, spoilt) => {
    const engine = await load([half, single]);
    outcomes = [spoilt, good, good];
    expect([...(await engine.generate(request, callbacks)).data]).toEqual(good);
    expect(notices).toEqual([expect.stringMatching(/^float16 arithmetic .* drawn again in float32/)]);
    expect(requests[0].seed).toBe(requests[1].seed);
    expect(unloaded).toEqual(["float16"]);
    expect(engine.info.dtype).toBe("float32");
    await engine.generate(request, callbacks); // stays in float32
    expect([requests.length, notices.length]).toEqual([3, 1]);
  });

  test("good is left alone", async () => {
    const engine = await load([half, single]);
    outcomes = [good];
    await engine.generate(request, callbacks);
    expect([requests.length, notices, engine.info.dtype]).toEqual([1, [], "float16"]);
  });

  test("black is all there is without a float32 library", async () => {
    const engine = await load([half]);
    outcomes = [black];
    expect([...(await engine.generate(request, callbacks)).data]).toEqual(black);
    expect(notices).toEqual([]);
  });
});

test("a picture that is not finite in float32 either is told", async () => {
  const engine = await load([half, single]);
  outcomes = [notFinite, notFinite];
  await expect(engine.generate(request, callbacks)).rejects.toBe(notFinite);
  expect(requests).toHaveLength(2);
});

test("a mistake of the caller is not drawn again", async () => {
  const engine = await load([half, single]);
  outcomes = [new UserError("steps", "0", "1 to 100", "choose")];
  await expect(engine.generate(request, callbacks)).rejects.toThrow("steps");
  expect(requests).toHaveLength(1);
});
