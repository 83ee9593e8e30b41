import { beforeEach, describe, expect, test, vi } from "vitest";
import type {
  Components,
  Context,
  ControlEmbedding,
  DeepFeature,
  FloatArray,
  Residuals,
} from "../../src/engine/components";
import type { Step } from "../../src/engine/denoising";
import type { ControlNetEntry, Manifest } from "../../src/engine/manifest";
import { standardNormal } from "../../src/engine/noise";
import type { Image } from "../../src/engine/picture";
import { ControlNetPipeline, type GeneratedImage } from "../../src/engine/pipeline";
import type { GenerateRequest } from "../../src/engine/request";
import { descriptionsFromJson } from "../../src/engine/samplers/description";
import type { Row } from "../../src/engine/samplers/row";
import type { Size } from "../../src/engine/size";
import { PromptTokenizer } from "../../src/engine/tokenizer";
import {
  DEPTH,
  FILES,
  HEIGHT,
  LINES,
  makeInpaintingManifest,
  makeManifest,
  makeXlManifest,
  VAE_ENCODER,
  WIDTH,
} from "./sample_bundle";

/** Two steps that are easy to follow: x0 = m, then x <- x0, with noise if eta is not 0. A picture's latents start halved. */
vi.mock("../../src/engine/samplers/schedule", async (load) => {
  const real = await load<typeof import("../../src/engine/samplers/schedule")>();
  const buildSchedule: typeof real.buildSchedule = (...given) => {
    real.buildSchedule(...given); // its checks
    const [, , count, { eta = 0, strength = 1 } = {}] = given;
    const row = (timestep: number, inputScale: number): Row => ({
      timestep,
      inputScale,
      x0Sample: 0,
      x0Output: 1,
      outputSample: 0,
      outputModel: 1,
      correctedSamples: [],
      correctedOutputs: [],
      nextSamples: [],
      nextOutputs: [1],
      nextNoises: eta ? [eta] : [],
      signalScale: inputScale / 2,
      noiseScale: 1 / 4,
    });
    const rows = [row(900, 1), row(400, 0.5)].slice(0, count);
    return { initNoiseSigma: 2, rows: rows.slice(rows.length - Math.trunc(rows.length * strength)) };
  };
  return { ...real, buildSchedule };
});

const TOKENS = 5;
const LATENTS = 4 * (HEIGHT / 8) * (WIDTH / 8);

/**
 * Components on the host that note their calls and count what is alive. The unet gives its context's number for each latent,
 * the VAE the first latent for each pixel.
 */
class FakeComponents implements Components {
  readonly calls: string[] = [];
  alive = 0;
  /** The number of latents. */
  latents = LATENTS;
  /** Whether the unet leaves a deep feature. */
  leavesFeature = false;
  required: readonly string[] = [];
  guidance: number | undefined;
  /** What the unet's sample held after the latents. */
  extraChannels: number[] = [];
  /** The component that returns NaN. */
  broken = "";

  async require(names: readonly string[]): Promise<void> {
    this.required = names;
  }

  async textEncoder(tokenIds: Int32Array, clipSkip = 0): Promise<Context> {
    this.calls.push(`text_encoder ${[...tokenIds]}${clipSkip ? ` without ${clipSkip}` : ""}`);
    const value = this.broken === "text_encoder" ? Number.NaN : tokenIds[1];
    return this.onDevice([new Float32Array(TOKENS).fill(value)]);
  }

  async textEncoder2(ids: Int32Array, end: number, first: Context, clipSkip = 0): Promise<Context> {
    const [values] = await first.read();
    this.calls.push(`text_encoder_2 ${[...ids]} ${end} ${[...values]}${clipSkip ? ` without ${clipSkip}` : ""}`);
    const rows = [...values].flatMap((value) => [value, 10 * value]); // D = 1 + 1
    return this.onDevice([Float32Array.from(rows), Float32Array.of(ids[1], end)]);
  }

  firstWidth(): number {
    return 1;
  }

  async context(values: FloatArray, textEmbeds?: FloatArray): Promise<Context> {
    this.calls.push(`context ${[...values]}${textEmbeds ? ` with ${[...textEmbeds]}` : ""}`);
    return this.onDevice(textEmbeds ? [values, textEmbeds] : [values]);
  }

  async controlEmbedding(image: FloatArray, controlnet: ControlNetEntry): Promise<ControlEmbedding> {
    const name = controlnet.control_embedding;
    this.calls.push(`${name} ${image.length}`);
    const embedding = this.onDevice([Float32Array.of(this.broken === name ? Number.NaN : 1)]);
    return { ...embedding, controlnet };
  }

  async controlnet(
    sample: FloatArray,
    timestep: number,
    _: Context,
    control: ControlEmbedding,
    scales: readonly number[],
  ): Promise<Residuals> {
    const name = control.controlnet.controlnet;
    this.calls.push(`${name} ${sample[0].toFixed(3)} ${timestep} ${scales}`);
    const [[embedded]] = (control as unknown as { values: FloatArray[] }).values;
    return this.onDevice([Float32Array.of(embedded), Float32Array.of(this.broken === name ? Number.NaN : embedded)]);
  }

  async residualSum(one: Residuals, other: Residuals): Promise<Residuals> {
    this.calls.push("residual_sum");
    if (this.broken === "residual_sum") throw new Error("residual_sum");
    const others = await other.read();
    return this.onDevice((await one.read()).map((values, i) => values.map((value, j) => value + others[i][j])));
  }

  async zeroResiduals({ height, width }: Size = { height: HEIGHT, width: WIDTH }): Promise<Residuals> {
    this.calls.push(`zero residuals${height === HEIGHT ? "" : ` ${width}x${height}`}`);
    return this.onDevice([Float32Array.of(0)]);
  }

  async unet(
    sample: FloatArray,
    timestep: number,
    context: Context,
    residuals: Residuals,
    guidanceScale?: number,
  ): Promise<FloatArray> {
    this.guidance = guidanceScale;
    if (context.timeIds) this.calls.push(`time_ids ${[...context.timeIds]}`);
    this.calls.push(`unet ${sample[0].toFixed(3)} ${timestep}`);
    this.extraChannels = [...sample.subarray(this.latents)];
    const [[number], ...parts] = [...(await context.read()), ...(await residuals.read())];
    const finite = [number, ...parts.map(([part]) => part)].every(Number.isFinite) && this.broken !== "unet";
    return new Float32Array(sample.length - this.extraChannels.length).fill(finite ? number : Number.NaN);
  }

  async unetAndFeature(...inputs: Parameters<Components["unet"]>) {
    const feature = this.leavesFeature ? this.onDevice([Float32Array.of(inputs[1])]) : undefined;
    return { output: await this.unet(...inputs), feature };
  }

  async unetShallow(
    sample: FloatArray,
    timestep: number,
    context: Context,
    feature: DeepFeature,
    residuals: Residuals,
  ): Promise<FloatArray> {
    const [[from]] = (feature as unknown as { values: FloatArray[] }).values;
    const [[residual]] = await residuals.read();
    this.calls.push(`unet_shallow ${timestep} with the feature of ${from} and residual ${residual}`);
    const [[number]] = await context.read();
    return new Float32Array(sample.length).fill(this.broken === "unet_shallow" ? Number.NaN : number);
  }

  async vaeDecoder(latents: FloatArray, { height, width } = { height: HEIGHT, width: WIDTH }): Promise<FloatArray> {
    this.calls.push("vae_decoder");
    return new Float32Array(3 * height * width).fill(this.broken === "vae_decoder" ? Number.NaN : latents[0]);
  }

  async previewDecoder(latents: FloatArray, { height, width } = { height: HEIGHT, width: WIDTH }): Promise<FloatArray> {
    this.calls.push("preview_decoder");
    return new Float32Array(3 * height * width).fill(latents[0] / 100);
  }

  async vaeEncoder(image: FloatArray): Promise<FloatArray> {
    this.calls.push(`vae_encoder ${image[0]} ${image[image.length - 1]}`);
    const moments = new Float32Array(2 * LATENTS).fill(99); // log-variances, which are not read
    return moments.fill(this.broken === "vae_encoder" ? Number.NaN : image[image.length - 1], 0, LATENTS);
  }

  private onDevice(values: FloatArray[]) {
    this.alive++;
    return { values, read: async () => values, dispose: () => void this.alive-- };
  }
}

let components: FakeComponents;
let pipeline: ControlNetPipeline;
const controlImage: Image = { width: WIDTH, height: HEIGHT, data: new Uint8ClampedArray(4 * WIDTH * HEIGHT).fill(255) };
/** Without guidance: the unet's output is the number of the prompt's first token; c is 2. */
const request: GenerateRequest = { prompt: "c", controlImage, seed: 3, guidanceScale: 1 };

beforeEach(() => {
  load(makeManifest());
});

function load(manifest: Manifest) {
  components = new FakeComponents();
  pipeline = new ControlNetPipeline({
    manifest,
    bundleSha256: "abc",
    tokenizers: [manifest.tokenizer, ...manifest.more_tokenizers].map(
      (spec) => new PromptTokenizer(FILES["tokenizer/tokenizer.json"], spec),
    ),
    samplers: descriptionsFromJson(FILES["samplers.json"], "samplers.json"),
    components,
  });
}

async function run(changes: Partial<GenerateRequest> = {}) {
  const steps: Step[] = [];
  const notices: string[] = [];
  const loop = pipeline.generate(
    { ...request, ...changes },
    {
      onNotice: (notice) => notices.push(notice),
      onProgress: () => {},
    },
  );
  let result = await loop.next();
  for (; !result.done; result = await loop.next()) steps.push(result.value);
  return { image: result.value as GeneratedImage, steps, notices };
}

test("components are called in order, with what the table and the request say", async () => {
  await run({ controlnetConditioningScale: 0.5 });
  const first = (2 * standardNormal(1, 3)[0]).toFixed(3); // initial noise sigma 2
  const second = (0.5 * 2).toFixed(3); // model input scale times x0, which is the unet's 2
  expect(components.calls).toEqual([
    "text_encoder 6,2,7,7,7",
    `control_embedding ${3 * HEIGHT * WIDTH}`,
    `controlnet ${first} 900 0.5`,
    `unet ${first} 900`,
    `controlnet ${second} 400 0.5`,
    `unet ${second} 400`,
    "vae_decoder",
  ]);
});

test("guidance asks for the negative prompt first and mixes both outputs", async () => {
  const { steps } = await run({ guidanceScale: 3, negativePrompt: "b" });
  expect(components.calls.slice(0, 2)).toEqual(["text_encoder 6,1,7,7,7", "text_encoder 6,2,7,7,7"]);
  expect(steps[0].x0[0]).toBe(1 + 3 * (2 - 1)); // m = b + 3 (c - b), and the table's x0 is m
});

test("weights and skipped layers change the contexts", async () => {
  const { steps } = await run({ prompt: "c", negativePrompt: "(b:6)", guidanceScale: 3, clipSkip: 2 });
  expect(components.calls.slice(0, 3)).toEqual([
    "text_encoder 6,1,7,7,7 without 2",
    "context 0.5,3,0.5,0.5,0.5", // the mean is restored
    "text_encoder 6,2,7,7,7 without 2",
  ]);
  expect(steps[0].x0[0]).toBe(0.5 + 3 * (2 - 0.5));
  expect(components.alive).toBe(0);
});

test("a plain prompt has brackets and no weights", async () => {
  await run({ prompt: "(b:2)", promptSyntax: "plain" });
  expect(components.calls.filter((call) => call.startsWith("context"))).toEqual([]);
});

test("weights that cancel out are refused, and nothing stays on the device", async () => {
  await expect(run({ prompt: "(c:-4)", guidanceScale: 3 })).rejects.toThrow("prompt: got weights that cancel out");
  expect(components.alive).toBe(0);
});

test("a ControlNet that pools its residuals runs for the prompt only", async () => {
  load(makeManifest(undefined, { controlnets: [{ ...LINES, global_pool_conditions: true }] }));
  await run({ guidanceScale: 3 });
  const names = components.calls.map((call) => (call.startsWith("zero") ? call : call.split(" ")[0]));
  expect(names.slice(3, 7)).toEqual(["zero residuals", "controlnet", "unet", "unet"]);
  expect(components.alive).toBe(0);
  await run({ guidanceScale: 1 });
  expect(components.calls.filter((call) => call === "zero residuals")).toHaveLength(1);
});

describe("two ControlNets", () => {
  const two: Partial<GenerateRequest> = { controlImage: [controlImage, controlImage] };
  const steps = () => components.calls.map((call) => call.split(" ")[0]);
  beforeEach(() => load(makeManifest(undefined, { controlnets: [LINES, DEPTH] })));

  test("add their residuals, each with its own scale and its own window", async () => {
    await run({ ...two, controlnetConditioningScale: [0.5, 2], controlGuidanceEnd: [1, 0.5] });
    const seen = components.calls.filter((call) => /^(controlnet|residual_sum|zero)/.test(call));
    expect(seen.map((call) => call.replace(/ \S+ (?=\d+ )/, " "))).toEqual([
      "controlnet 900 0.5",
      "controlnet_2 900 2",
      "residual_sum",
      "controlnet 400 0.5",
    ]);
    expect(components.alive).toBe(0);
  });

  test("share nothing of the negative prompt where control matters more", async () => {
    await run({ ...two, guidanceScale: 2, controlMode: ["balanced", "control"], numInferenceSteps: 1 });
    expect(steps().slice(4)).toEqual([
      "controlnet", // of the negative prompt
      "controlnet",
      "controlnet_2",
      "residual_sum",
      "unet",
      "unet",
      "vae_decoder",
    ]);
  });

  test("are used as far as the request names them, in its order", async () => {
    await run({ ...two, controlnets: ["depth", "lines"], numInferenceSteps: 1 });
    expect(steps().filter((name) => name.startsWith("control_embedding"))).toEqual([
      "control_embedding_2",
      "control_embedding",
    ]);
    await run({ controlnets: ["depth"], numInferenceSteps: 1 });
    expect(steps().slice(-5)).toEqual(["text_encoder", "control_embedding_2", "controlnet_2", "unet", "vae_decoder"]);
    await run({ controlImage: undefined, controlnets: [], numInferenceSteps: 1 });
    expect(steps().slice(-4)).toEqual(["text_encoder", "zero", "unet", "vae_decoder"]);
    expect(components.alive).toBe(0);
  });

  test.each([
    ["control_embedding_2", "control_embedding_2, step 1 of 2: got NaN or infinity"],
    ["controlnet_2", "controlnet + controlnet_2, step 1 of 2: got NaN or infinity"],
  ])("are told apart where %s returns no number", async (component, complaint) => {
    components.broken = component;
    await expect(run(two)).rejects.toThrow(complaint);
    expect(components.alive).toBe(0);
  });

  test("leave nothing on the device when their sum fails", async () => {
    components.broken = "residual_sum";
    await expect(run(two)).rejects.toThrow("residual_sum");
    expect(components.alive).toBe(0);
  });
});

const DRAWING = ["text_encoder", "control_embedding", "controlnet", "unet", "vae_decoder"];

function loadWithEncoder() {
  const { components: drawing } = makeManifest();
  load(makeManifest(FILES, { components: { ...drawing, vae_encoder: VAE_ENCODER }, memory: {} }));
}

/** White, but for the last column of cells, which is black. */
const maskOfTheLeft = () => {
  const mask: Image = { ...controlImage, data: controlImage.data.slice() };
  for (let i = 0; i < WIDTH * HEIGHT; i++) if (i % WIDTH >= WIDTH - 8) mask.data.fill(0, 4 * i, 4 * i + 3);
  return mask;
};

test("only what a picture needs is asked for", async () => {
  load(makeManifest(undefined, { controlnets: [LINES, DEPTH] }));
  await run({ controlnets: ["depth"] });
  expect(components.required).toEqual([...DRAWING, "control_embedding_2", "controlnet_2"]);
  loadWithEncoder();
  await run();
  expect(components.required).toEqual(DRAWING);
  await run({ image: controlImage });
  expect(components.required).toEqual([...DRAWING, "vae_encoder"]);
});

describe("a picture to start from", () => {
  beforeEach(loadWithEncoder);
  const latents = 1 * 0.25; // white's mean times the scaling factor
  const noise = standardNormal(LATENTS, 3);

  test("is noised for the first step that runs", async () => {
    const { image, steps } = await run({ image: controlImage, strength: 0.5 });
    expect(steps.map(({ index, count, timestep }) => [index, count, timestep])).toEqual([[0, 1, 400]]);
    const x = 0.25 * latents + noise[0] / 4;
    expect(components.calls).toContain(`unet ${(0.5 * x).toFixed(3)} 400`);
    expect(image.latents).toEqual(new Float32Array(LATENTS).fill(2)); // the unet's output
  });

  test("may be latents, which no encoder reads", async () => {
    const latents = new Float32Array(LATENTS).fill(3);
    const { image } = await run({ image: latents, strength: 0 });
    expect([...image.latents]).toEqual([...latents]);
    expect(components.required).not.toContain("vae_encoder");
    const short = run({ image: new Float32Array(2) });
    await expect(short).rejects.toThrow("image: got 2 numbers, wanted [1, ");
    const masked = run({ image: latents, maskImage: maskOfTheLeft() });
    await expect(masked).rejects.toThrow("image: got latents beside a mask image, wanted a picture;");
  });

  test("with strength 0 comes back through the VAE alone", async () => {
    const { image, steps } = await run({ image: controlImage, strength: 0 });
    expect(steps).toEqual([]);
    expect(image.latents).toEqual(new Float32Array(LATENTS).fill(latents));
    expect(components.calls.filter((call) => call.startsWith("unet"))).toEqual([]);
  });

  test("needs an encoder", async () => {
    load(makeManifest());
    await expect(run({ image: controlImage })).rejects.toThrow(
      "image: got one, wanted none: the bundle of circles has no VAE encoder; leave it out",
    );
    expect(components.calls).toEqual([]);
  });
});

describe("a part of a picture, with a UNet of four channels", () => {
  beforeEach(loadWithEncoder);
  const repaint = { image: controlImage, maskImage: maskOfTheLeft() };
  const latents = 1 * 0.25;
  const noise = standardNormal(LATENTS, 3);
  const isKept = (i: number) => i % 3 === 2;

  test("is repainted, and after each step the rest is put back, noised as the next step is", async () => {
    const { image, steps } = await run(repaint);
    for (let i = 0; i < LATENTS; i++) {
      expect(steps[0].x[i]).toBeCloseTo(isKept(i) ? 0.25 * latents + noise[i] / 4 : 2, 6);
      expect(image.latents[i]).toBe(isKept(i) ? latents : 2);
    }
    expect(components.extraChannels).toEqual([]);
    expect(components.calls).toContain(`unet ${(2 * noise[0]).toFixed(3)} 900`); // strength 1: from noise alone
  });

  test("starts from the picture with less strength", async () => {
    await run({ ...repaint, strength: 0.5 });
    expect(components.calls).toContain(`unet ${(0.5 * (0.25 * latents + noise[0] / 4)).toFixed(3)} 400`);
  });

  test("leaves the picture's own pixels outside of the mask, unless the request says otherwise", async () => {
    const grey: Image = { ...controlImage, data: new Uint8ClampedArray(4 * WIDTH * HEIGHT).fill(99).fill(255, 3, 4) };
    for (let i = 0; i < WIDTH * HEIGHT; i++) grey.data[4 * i + 3] = 255;
    const right = 4 * (WIDTH - 1);
    const pasted = await run({ ...repaint, image: grey });
    expect([...pasted.image.data.subarray(right, right + 3)]).toEqual([99, 99, 99]);
    expect(pasted.image.data[0]).toBe(255); // the decoder's 2, clipped
    const whole = await run({ ...repaint, image: grey, applyOverlay: false });
    expect(whole.image.data[right]).toBe(255);
  });

  test("around the mask is drawn at the model's size, in a picture that keeps its own", async () => {
    const size = { width: 96, height: 64 };
    const photo: Image = { ...size, data: new Uint8ClampedArray(4 * 96 * 64).fill(255) };
    const mask: Image = { ...size, data: new Uint8ClampedArray(4 * 96 * 64) };
    for (let y = 20; y < 28; y++) mask.data.fill(255, 4 * (y * 96 + 40), 4 * (y * 96 + 52));
    const { image } = await run({ image: photo, maskImage: mask, paddingMaskCrop: 2, controlImage: photo });
    expect([image.width, image.height, image.data.length]).toEqual([96, 64, 4 * 96 * 64]);
    expect(components.calls).toContain(`control_embedding ${3 * HEIGHT * WIDTH}`);
  });
});

test("a sampler's noise is the seed's, a stream for each step", async () => {
  const { steps } = await run({ eta: 0.5 });
  expect(steps[0].x[1]).toBeCloseTo(2 + 0.5 * standardNormal(LATENTS, 3, 1)[1], 6);
  expect(steps[1].x[1]).toBeCloseTo(2 + 0.5 * standardNormal(LATENTS, 3, 2)[1], 6);
});

test("a caller's latents replace the seed's noise", async () => {
  await run({ latents: new Float32Array(LATENTS).fill(0.75) });
  expect(components.calls).toContain("unet 1.500 900");
  await expect(run({ latents: new Float32Array(3) })).rejects.toThrow(
    `latents: got 3 numbers, wanted [1, 4, 2, 3] of finite numbers;`,
  );
  await expect(run({ latents: new Float32Array(LATENTS).fill(Number.NaN) })).rejects.toThrow("with NaN or infinity");
});

test("encoded prompts are read in place of the texts", async () => {
  const { steps } = await run({
    prompt: "",
    guidanceScale: 3,
    promptEmbeds: new Float32Array(5).fill(8),
    negativePrompt: "b",
  });
  expect(components.calls.slice(0, 2)).toEqual(["text_encoder 6,1,7,7,7", "context 8,8,8,8,8"]);
  expect(steps[0].x0[0]).toBe(1 + 3 * (8 - 1));
});

describe("a preview decoder", () => {
  const drawn = async () => {
    const steps: Step[] = [];
    for await (const step of pipeline.generate(request, { decodesPreviews: true })) steps.push(step);
    return steps;
  };

  test("decodes what each step predicts, at the picture's size", async () => {
    const { components: drawing } = makeManifest();
    load(makeManifest(FILES, { components: { ...drawing, preview_decoder: drawing.vae_decoder }, memory: {} }));
    const steps = await drawn();
    expect(components.required).toContain("preview_decoder");
    for (const { decodedPreview, x0 } of steps) {
      expect([decodedPreview?.width, decodedPreview?.height]).toEqual([WIDTH, HEIGHT]);
      expect(decodedPreview?.data[0]).toBe(Math.round(255 * Math.min(1, Math.max(0, x0[0] / 200 + 0.5))));
    }
    expect(steps).toHaveLength(2);
    await run({});
    expect(components.required).not.toContain("preview_decoder"); // nobody asked for it
  });

  test("that a bundle does not have is not called", async () => {
    for (const step of await drawn()) expect(step.decodedPreview).toBeUndefined();
    expect(components.calls).not.toContain("preview_decoder");
  });
});

test("latents that the caller passes on replace a step's", async () => {
  const loop = pipeline.generate(request);
  await loop.next();
  await loop.next(new Float32Array(LATENTS).fill(10));
  expect(components.calls.at(-1)).toBe("unet 5.000 400");
  await expect(loop.next(new Float32Array(2))).rejects.toThrow("latents of the caller: got 2 numbers, wanted 24;");
  expect(components.alive).toBe(0);
});

describe("two text encoders", () => {
  beforeEach(() => load(makeXlManifest()));
  const encoding = () => [...new Set(components.calls.filter((call) => /^(text_encoder|context|time_ids)/.test(call)))];
  const here = `${HEIGHT},${WIDTH}`;

  test("read one prompt, each with its own padding, and the second one where it ends", async () => {
    await run();
    expect(encoding()).toEqual([
      "text_encoder 6,2,7,7,7",
      "text_encoder_2 6,2,7,0,0 2 2,2,2,2,2",
      `time_ids ${here},0,0,${here}`,
    ]);
    expect(components.alive).toBe(0);
  });

  test("read two prompts, and sizes that the request names", async () => {
    const options = { negativePrompt: "b", negativePrompt2: "c", guidanceScale: 3, clipSkip: 1 };
    await run({
      ...options,
      prompt2: "b",
      originalSize: [5, 6],
      cropsCoordsTopLeft: [1, 2],
      negativeTargetSize: [7, 8],
    });
    expect(encoding()).toEqual([
      "text_encoder 6,1,7,7,7 without 1",
      "text_encoder_2 6,2,7,0,0 2 1,1,1,1,1 without 1",
      "text_encoder 6,2,7,7,7 without 1",
      "text_encoder_2 6,1,7,0,0 2 2,2,2,2,2 without 1",
      "time_ids 5,6,1,2,7,8",
      `time_ids 5,6,1,2,${here}`,
    ]);
  });

  test("have weights each of its own", async () => {
    await run({ prompt: "(c:6)", prompt2: "(b:6)" });
    expect(encoding()).toEqual([
      "text_encoder 6,2,7,7,7",
      "context 1,6,1,1,1",
      "text_encoder_2 6,1,7,0,0 2 1,6,1,1,1",
      "context 1,2.5,6,90,1,2.5,1,2.5,1,2.5 with 1,2",
      `time_ids ${here},0,0,${here}`,
    ]);
    expect(components.alive).toBe(0);
  });

  test("read no empty negative prompt: zeros take its place", async () => {
    await run({ guidanceScale: 3 });
    expect(encoding().slice(2, 3)).toEqual(["context 0,0,0,0,0,0,0,0,0,0 with 0,0"]);
    expect(components.alive).toBe(0);
  });

  test("take encoded prompts with their pooled outputs only", async () => {
    const promptEmbeds = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    const pooledPromptEmbeds = Float32Array.of(1, 2);
    await run({ prompt: "", promptEmbeds, pooledPromptEmbeds });
    expect(encoding()[0]).toBe("context 1,2,3,4,5,6,7,8,9,10 with 1,2");
    await expect(run({ prompt: "", promptEmbeds })).rejects.toThrow("pooled prompt embeds");
    await expect(run({ pooledPromptEmbeds })).rejects.toThrow("one without prompt embeds");
    load(makeManifest());
    await expect(run({ prompt2: "b" })).rejects.toThrow("prompt 2: got b");
    await expect(run({ originalSize: [1, 2] })).rejects.toThrow("original size: got [1,2]");
  });
});

test("a UNet that embeds the guidance scale gets it, and is called once", async () => {
  const { components: drawing } = makeManifest();
  const scale = { name: "guidance_scale", shape: [1], dtype: "float32" };
  const unet = { ...drawing.unet, inputs: [...drawing.unet.inputs, scale] };
  load(makeManifest(undefined, { components: { ...drawing, unet } }));
  await run({ guidanceScale: 7.5, numInferenceSteps: 1 });
  expect(components.guidance).toBe(7.5);
  expect(components.calls.filter((call) => call.startsWith("unet"))).toHaveLength(1);
});

describe("an inpainting model", () => {
  const image: Image = controlImage; // white
  const maskImage = maskOfTheLeft();
  beforeEach(() => load(makeInpaintingManifest()));

  test("gets the mask and the latents of the masked picture after its own, unscaled", async () => {
    await run({ image, maskImage });
    expect(components.calls.slice(1, 3)).toEqual([`control_embedding ${3 * HEIGHT * WIDTH}`, "vae_encoder 0 1"]);
    const kept = Array(LATENTS).fill(1 * 0.25); // the encoder's mean times the scaling factor
    expect(components.extraChannels).toEqual([1, 1, 0, 1, 1, 0, ...kept]);
    expect(components.calls.filter((call) => call.startsWith("vae_encoder"))).toHaveLength(1);
  });

  test("tells what was done to both pictures", async () => {
    const small = { width: 48, height: 32, data: new Uint8ClampedArray(4 * 48 * 32).fill(255) };
    const { notices } = await run({ image: small, maskImage: small });
    expect(notices).toEqual(["image", "mask image"].map((name) => `${name}: 48x32 was scaled to cover 24x16`));
  });

  test.each([
    [
      "no picture",
      { maskImage },
      "image: got none, wanted a picture and a mask that is white where the model repaints;",
    ],
    ["no mask", { image }, "mask image: got none, wanted a picture and a mask"],
    ["a mask that is none", { image, maskImage: {} as never }, "mask image: got Object without pixels, wanted pixels"],
  ])("refuses %s before anything runs", async (_, pictures, complaint) => {
    await expect(run(pictures)).rejects.toThrow(complaint);
    expect(components.calls).toEqual([]);
  });

  test("names the encoder where it makes what is no number", async () => {
    components.broken = "vae_encoder";
    await expect(run({ image, maskImage })).rejects.toThrow("vae_encoder, before step 1: got NaN or infinity in 24");
    expect(components.alive).toBe(0);
  });
});

test("a step is yielded after each row", async () => {
  const { steps } = await run();
  expect(steps.map(({ index, count, timestep }) => [index, count, timestep])).toEqual([
    [0, 2, 900],
    [1, 2, 400],
  ]);
});

test("the preview is a pixel a latent cell, coloured by the manifest", async () => {
  const { steps } = await run({ prompt: "b" }); // x0 is 1 everywhere: rgb = (1, 1, 1 + 0.5), clipped
  const preview = steps[0].preview();
  expect([preview.width, preview.height]).toEqual([WIDTH / 8, HEIGHT / 8]);
  expect([...preview.data.subarray(0, 4)]).toEqual([255, 255, 255, 255]);
});

test("the picture is the decoder's -1..1 as 0..255, opaque", async () => {
  const { image } = await run({ prompt: "a" }); // latents are 0 at the end: grey
  expect([image.width, image.height, ...image.data.subarray(0, 4)]).toEqual([WIDTH, HEIGHT, 128, 128, 128, 255]);
});

test.each([
  ["the first half of the steps", { controlGuidanceEnd: 0.5 }, ["controlnet", "unet", "zero", "unet"]],
  ["the second half", { controlGuidanceStart: 0.5 }, ["zero", "unet", "controlnet", "unet"]],
  ["nothing at scale 0", { controlnetConditioningScale: 0 }, ["zero", "unet", "unet"]],
  [
    "no context of a step that is left out",
    { controlGuidanceEnd: 0.5, guidanceScale: 2 },
    ["controlnet", "controlnet", "unet", "unet", "zero", "unet", "unet"],
  ],
])("the control image steers %s", async (_, changes, calls) => {
  await run(changes);
  const names = components.calls.map((call) => call.split(" ")[0]);
  expect(names.filter((name) => ["controlnet", "zero", "unet"].includes(name))).toEqual(calls);
  expect(components.alive).toBe(0);
});

test("settings and metadata say what made the picture", async () => {
  const { image } = await run();
  expect(image.settings).toEqual({
    prompt: "c",
    negativePrompt: "",
    prompt2: null,
    negativePrompt2: null,
    promptSyntax: "webui",
    clipSkip: 0,
    seed: 3,
    numInferenceSteps: 2,
    guidanceScale: 1,
    guidanceRescale: 0,
    controlnets: ["lines"],
    controlnetConditioningScale: 1,
    controlGuidanceStart: 0,
    controlGuidanceEnd: 1,
    controlMode: "balanced",
    guessMode: false,
    sampler: "ddim",
    scheduleType: null,
    eta: 0,
    timesteps: null,
    sigmas: null,
    height: HEIGHT,
    width: WIDTH,
    originalSize: null,
    cropsCoordsTopLeft: null,
    targetSize: null,
    negativeOriginalSize: null,
    negativeCropsCoordsTopLeft: null,
    negativeTargetSize: null,
    hiresScale: null,
    hiresStrength: null,
    hiresSteps: null,
    hiresUpscaler: null,
    deepcacheInterval: 1,
    strength: 1,
    maskBlur: 0,
    paddingMaskCrop: null,
    maskedContent: "original",
    applyOverlay: true,
  });
  expect(image.metadata.parameters).toMatch(/^c\nNegative prompt: \nSteps: 2, Sampler: DDIM, /);
  expect(JSON.parse(image.metadata["mlc-controlnet"])).toEqual({
    prompt: "c",
    negative_prompt: "",
    prompt_syntax: "webui",
    clip_skip: "0",
    seed: "3",
    num_inference_steps: "2",
    guidance_scale: "1",
    guidance_rescale: "0",
    controlnets: '["lines"]',
    controlnet_conditioning_scale: "1",
    control_guidance_start: "0",
    control_guidance_end: "1",
    control_mode: "balanced",
    guess_mode: "false",
    sampler: "ddim",
    eta: "0",
    height: "16",
    width: "24",
    deepcache_interval: "1",
    strength: "1",
    mask_blur: "0",
    masked_content: "original",
    apply_overlay: "true",
    model: "circles",
    bundle_sha256: "abc",
  });
});

test.each([
  [
    "no control image",
    { controlImage: undefined },
    "control image: got none, wanted 1, one for each ControlNet in use",
  ],
  ["a misspelt key", { stpes: 4 } as never, "key of the request: got 'stpes', wanted one of prompt, "],
  ["an option out of range", { numInferenceSteps: 0 }, "num inference steps: got 0, wanted"],
])("%s is refused before anything runs", async (_, changes, complaint) => {
  await expect(run(changes)).rejects.toThrow(complaint);
  expect(components.calls).toEqual([]);
});

test("a prompt that was cut and an image that was scaled are reported", async () => {
  const small = { width: 8, height: 8, data: new Uint8ClampedArray(256).fill(255) };
  const { notices } = await run({ prompt: "a b c Aa b", controlImage: small });
  expect(notices).toEqual([
    "control image: 8x8 was scaled to cover 24x16 and cropped around its centre",
    "prompt: longer than 5 tokens, this end was cut: “Aa b”",
  ]);
});

describe("numbers that are not finite", () => {
  test.each([
    ["text_encoder", "text_encoder, step 1 of 2: got NaN or infinity in 5 of 5 numbers"],
    ["control_embedding", "control_embedding, step 1 of 2: got NaN or infinity in 1 of 1 numbers"],
    ["controlnet", "controlnet, step 1 of 2: got NaN or infinity in 1 of 1 numbers"],
    ["unet", `unet, step 1 of 2: got NaN or infinity in ${LATENTS} of ${LATENTS} numbers`],
    ["vae_decoder", "vae_decoder, after 2 steps: got NaN or infinity in"],
  ])("are blamed on the %s where it made them", async (component, complaint) => {
    components.broken = component;
    await expect(run()).rejects.toThrow(complaint);
    expect(components.alive).toBe(0);
  });
});

describe("what is on the device is freed", () => {
  test("after a picture", async () => {
    await run({ guidanceScale: 2 });
    expect(components.alive).toBe(0);
  });

  test("when the loop is left in the middle", async () => {
    for await (const _ of pipeline.generate({ ...request, guidanceScale: 2 })) break;
    expect(components.alive).toBe(0);
    expect(components.calls).not.toContain("vae_decoder");
  });
});

describe("DeepCache", () => {
  beforeEach(() => {
    const { components: own } = makeManifest();
    load(makeManifest(undefined, { components: { ...own, unet_shallow: own.unet } }));
    components.leavesFeature = true;
  });

  test("a shallow step runs no ControlNet and reads what the whole step left for its context", async () => {
    await run({ deepcacheInterval: 2, guidanceScale: 2, negativePrompt: "a" });
    const steps = components.calls.filter((call) => /^(controlnet|unet)/.test(call));
    expect(steps.map((call) => call.replace(/ -?\d+\.\d{3} /, " ").replace(/ 1$/, ""))).toEqual([
      "controlnet 900",
      "controlnet 900",
      "unet 900",
      "unet 900",
      "unet_shallow 400 with the feature of 900 and residual",
      "unet_shallow 400 with the feature of 900 and residual",
    ]);
    expect(components.required).toContain("unet_shallow");
    expect(components.alive).toBe(0);
  });

  test("with an interval of one, nothing is kept from step to step", async () => {
    const { image } = await run();
    expect(components.calls.filter((call) => call.startsWith("unet_shallow"))).toEqual([]);
    expect(components.required).not.toContain("unet_shallow");
    expect(image.settings.deepcacheInterval).toBe(1);
    expect(components.alive).toBe(0);
  });

  test.each(["unet", "unet_shallow"])("if %s returns NaN, what was kept is freed", async (broken) => {
    components.broken = broken;
    await expect(run({ deepcacheInterval: 2 })).rejects.toThrow("NaN or infinity");
    expect(components.alive).toBe(0);
  });
});

describe("hires fix", () => {
  const [height, width] = [2 * HEIGHT, 2 * WIDTH];
  const large = { height, width, chunks: 1, functions: {} };
  const options = { hiresScale: 2, hiresStrength: 0.5, hiresUpscaler: "nearest" } as const;

  beforeEach(() => load(makeManifest(undefined, { variants: [large] })));

  test("draws again from the enlarged latents, with the control image of the larger size", async () => {
    const { image, steps } = await run(options);
    const noise = standardNormal(4 * LATENTS, 3);
    const noised = 0.25 * 2 + 0.25 * noise[0]; // of the first pass's x0, which is the unet's 2
    const second = components.calls.slice(components.calls.indexOf(`control_embedding ${3 * height * width}`));
    expect(second.slice(0, 3)).toEqual([
      `control_embedding ${3 * height * width}`,
      `controlnet ${(0.5 * noised).toFixed(3)} 400 1`,
      `unet ${(0.5 * noised).toFixed(3)} 400`,
    ]);
    expect(steps.map(({ index, count, x }) => [index, count, x.length])).toEqual([
      [0, 3, LATENTS],
      [1, 3, LATENTS],
      [2, 3, 4 * LATENTS],
    ]);
    expect([image.width, image.height, image.latents.length]).toEqual([width, height, 4 * LATENTS]);
    expect([image.settings.height, image.settings.hiresScale]).toEqual([HEIGHT, 2]);
    expect(components.alive).toBe(0);
  });

  test("with strength 0 only enlarges the latents", async () => {
    const { image, steps } = await run({ ...options, hiresStrength: 0 });
    expect(steps).toHaveLength(2);
    expect(image.latents).toEqual(new Float32Array(4 * LATENTS).fill(2));
  });

  test("decodes in tiles if no decoder is compiled for the larger size", async () => {
    const decoded = async () => {
      const { image } = await run(options);
      expect([...image.data.subarray(0, 4)]).toEqual([255, 255, 255, 255]); // of latents that are 2 everywhere
      return components.calls.filter((call) => call === "vae_decoder").length;
    };
    expect(await decoded()).toBe(9); // 4 x 6 cells in tiles of 2 x 3
    const latents = { name: "latents", shape: [1, 4, height / 8, width / 8], dtype: "float32" };
    const decoder = { function: "vae_decoder_48x32", inputs: [latents], outputs: [] };
    load(makeManifest(undefined, { variants: [{ ...large, functions: { vae_decoder: decoder } }] }));
    expect(await decoded()).toBe(1);
  });

  test("takes latents in place of a step's in both passes, and frees what it holds when it is left", async () => {
    const loop = pipeline.generate({ ...request, ...options });
    await loop.next();
    await loop.next();
    const { value } = await loop.next(new Float32Array(LATENTS).fill(6)); // after the last step of the first pass
    expect((value as Step).index).toBe(2);
    const noised = 0.25 * 6 + 0.25 * standardNormal(4 * LATENTS, 3)[0];
    expect(components.calls.at(-1)).toBe(`unet ${(0.5 * noised).toFixed(3)} 400`);
    await expect(loop.next(new Float32Array(LATENTS))).rejects.toThrow(
      "latents of the caller: got 24 numbers, wanted 96",
    );
    expect(components.alive).toBe(0);

    const left = pipeline.generate({ ...request, ...options });
    for (let step = 0; step < 3; step++) await left.next();
    expect(components.alive).toBeGreaterThan(0);
    await left.return(undefined as never);
    expect(components.alive).toBe(0);
  });
});

test("a picture of another size has its latents, its residuals of zeros and its pixels", async () => {
  load(makeManifest(undefined, { variants: [{ height: 2 * HEIGHT, width: WIDTH, chunks: 1, functions: {} }] }));
  components.latents = 2 * LATENTS;
  const { image, steps } = await run({ height: 2 * HEIGHT, controlnetConditioningScale: 0 });
  expect([image.width, image.height]).toEqual([WIDTH, 2 * HEIGHT]);
  expect(components.calls).toContain(`zero residuals ${WIDTH}x${2 * HEIGHT}`);
  const preview = steps[0].preview();
  expect([preview.width, preview.height]).toEqual([WIDTH / 8, HEIGHT / 4]);
});
