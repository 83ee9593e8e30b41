/** A tiny bundle in memory: valid in form, its library and weights are not. */

import { createHash } from "node:crypto";
import { DRAWING } from "../../src/engine/constants";
import type { Manifest } from "../../src/engine/manifest";

export type Files = Record<string, Uint8Array<ArrayBuffer>>;

/** H 16, W 24: not square, so that swapped axes show. */
export const HEIGHT = 16;
export const WIDTH = 24;

const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [
    { id: 6, content: "<s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    { id: 7, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
  ],
  normalizer: { type: "Lowercase" },
  pre_tokenizer: { type: "WhitespaceSplit" },
  post_processor: null,
  decoder: null,
  model: {
    type: "BPE",
    unk_token: "</s>",
    end_of_word_suffix: "</w>",
    vocab: { "a</w>": 0, "b</w>": 1, "c</w>": 2, a: 3, b: 4, c: 5, "<s>": 6, "</s>": 7 },
    merges: [],
  },
};

/** A training schedule whose noise grows evenly. Its numbers are easy to write and no model has them. */
const alphasCumprod = Float32Array.from({ length: 1000 }, (_, i) => 1 - (i + 1) / 1001);
const logSigmas = alphasCumprod.map((a) => Math.log(Math.sqrt((1 - a) / a)));
const base64 = (values: Float32Array<ArrayBuffer>) => Buffer.from(values.buffer).toString("base64");
const samplers = {
  prediction_type: "sample",
  schedules: [{ alphas_cumprod: base64(alphasCumprod), log_sigmas: base64(logSigmas) }],
  samplers: { ddim: { method: "ddim" }, ddpm: { method: "ddpm" } },
};

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

export const FILES: Files = {
  "circles-float32.wasm": Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0),
  "params/00.bin": Uint8Array.of(0x00, 0x3c, 0x00, 0xc0, 0, 0, 0, 0),
  "tokenizer/tokenizer.json": json(tokenizer),
  "samplers.json": json(samplers),
};

export const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Resident, every component keeps its one param; reduced, none does. */
export const MEMORY = {
  resident: { peak_bytes: 3000, step_upload_bytes: 0, kept_params: keptParams(1) },
  reduced: { peak_bytes: 2000, step_upload_bytes: 4, kept_params: keptParams(0) },
};

export const LINES = {
  name: "lines",
  control_embedding: "control_embedding",
  controlnet: "controlnet",
  global_pool_conditions: false,
  kind: "",
  graph: "",
};

export const DEPTH = {
  name: "depth",
  control_embedding: "control_embedding_2",
  controlnet: "controlnet_2",
  global_pool_conditions: false,
  kind: "",
  graph: "",
};

/** A VAE's encoder for pictures of the default size. */
export const VAE_ENCODER = {
  function: "vae_encoder",
  inputs: [{ name: "image", shape: [1, 3, HEIGHT, WIDTH], dtype: "float32" }],
  outputs: [],
  params: ["unet.weight"],
};

export function keptParams(count: number): Record<string, number> {
  return Object.fromEntries(DRAWING.map((name) => [name, count]));
}

/** The same of an inpainting model: the UNet's sample has nine channels, and the encoder is needed. */
export function makeInpaintingManifest(): Manifest {
  const { components } = makeManifest();
  const sample = { name: "sample", shape: [1, 9, HEIGHT / 8, WIDTH / 8], dtype: "float32" };
  const unet = { ...components.unet, inputs: [sample, ...components.unet.inputs] };
  return makeManifest(FILES, { components: { ...components, unet, vae_encoder: VAE_ENCODER }, memory: {} });
}

/** The same of Stable Diffusion XL: two text encoders, D = 1 + 1, whose prompts are padded differently, and P = 2. */
export function makeXlManifest(): Manifest {
  const { components, model, tokenizer } = makeManifest();
  const layerGates = { name: "layer_gates", shape: [3], dtype: "float32" };
  const [tokenIds] = components.text_encoder.inputs;
  const second = { ...components.text_encoder, inputs: [tokenIds, layerGates] };
  const context = { name: "context", shape: [1, 5, 2], dtype: "compute" };
  const textEmbeds = { name: "text_embeds", shape: [1, 2], dtype: "compute" };
  const unet = { ...components.unet, inputs: [context, textEmbeds, ...components.unet.inputs.slice(1)] };
  return makeManifest(FILES, {
    model: { ...model, zeros_for_empty_prompt: true },
    components: { ...components, text_encoder_2: second, unet },
    more_tokenizers: [{ ...tokenizer, pad_id: 0 }],
    memory: {},
  });
}

/** A manifest for `files`, with `changes` over it. */
export function makeManifest(files: Files = FILES, changes: Partial<Manifest> = {}): Manifest {
  const context = { name: "context", shape: [1, 5, 1], dtype: "compute" };
  const residual = { name: "mid_residual", shape: [1], dtype: "compute" };
  const latents = { name: "latents", shape: [1, 4, HEIGHT / 8, WIDTH / 8], dtype: "float32" };
  const tokenIds = { name: "token_ids", shape: [1, 5], dtype: "int32" };
  const layerGates = { name: "layer_gates", shape: [3], dtype: "float32" };
  const component = (name: string) => ({ function: name, inputs: [], outputs: [], params: ["unet.weight"] });
  const libraries = changes.libraries ?? [makeLibrary()];
  return {
    format_version: 3,
    model: {
      name: "circles",
      height: HEIGHT,
      width: WIDTH,
      latent_channels: 4,
      vae_scale_factor: 8,
      prediction_type: "v_prediction",
      scaling_factor: 0.25,
      zeros_for_empty_prompt: false,
    },
    target: "webgpu",
    libraries,
    components: {
      ...Object.fromEntries(DRAWING.map((name) => [name, component(name)])),
      vae_decoder: { ...component("vae_decoder"), inputs: [latents] },
      text_encoder: { ...component("text_encoder"), inputs: [tokenIds, layerGates] },
      unet: { ...component("unet"), inputs: [context, residual] },
    },
    controlnets: [LINES],
    params: {
      dtype: "float16",
      bytes: 4,
      shards: ["params/00.bin"],
      records: [{ name: "unet.weight", shape: [2], dtype: "float16", shard: 0, byte_offset: 0, bytes: 4 }],
      merged: [],
      quantized: [],
    },
    tokenizer: { file: "tokenizer/tokenizer.json", max_length: 5, begin_id: 6, end_id: 7, pad_id: 7 },
    more_tokenizers: [],
    samplers: { file: "samplers.json", default: "ddim" },
    defaults: { steps: 2, guidance_scale: 2, conditioning_scale: 1 },
    latent_preview: {
      weight: [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
      ],
      bias: [0, 0, 0.5],
    },
    memory: Object.fromEntries([...new Set(libraries.map(({ file }) => file))].map((file) => [file, MEMORY])),
    parity_db: {},
    versions: {},
    variants: [],
    files: Object.entries(files).map(([path, bytes]) => ({ path, bytes: bytes.length, sha256: sha256(bytes) })),
    ...changes,
  };
}

export function makeLibrary(changes: Partial<Manifest["libraries"][number]> = {}): Manifest["libraries"][number] {
  return {
    file: "circles-float32.wasm",
    device: "webgpu",
    dtype: "float32",
    required_features: [],
    instruction_set: "",
    memory_dtype: "",
    required_limits: { maxBufferSize: 1024 },
    activation_bytes: {},
    launches: {},
    largest_binding_bytes: 1024,
    kernels: [],
    ...changes,
  };
}

export const manifestBytes = (manifest: unknown) => json(manifest);
