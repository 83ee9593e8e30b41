/** The records of manifest.json. Field names are the file's own. Twin: the dataclasses of mlc_controlnet/bundle/manifest.py. */

import type { CONTROL_KINDS } from "./constants.ts";
import { absentMeans, boolean, integer, list, mapping, number, type Parsed, record, string } from "./json_record.ts";

/** What control images show, in ControlNet 1.1's words. A manifest has "" where the ControlNet's name does not tell. */
export type ControlKind = (typeof CONTROL_KINDS)[number];

const modelSummary = record({
  name: string,
  height: integer, // H, pixels
  width: integer, // W, pixels
  latent_channels: integer,
  vae_scale_factor: integer, // pixels per side of a latent cell
  prediction_type: string, // diffusers' word: epsilon, v_prediction or sample
  scaling_factor: number, // latents are the VAE encoder's mean times this
  zeros_for_empty_prompt: absentMeans(false, boolean), // in place of an encoded negative prompt that is empty
});

/** The GPU's kernels that a function of a library launches, in the order of their first launch. */
const functionKernels = record({ function: string, kernels: list(string) });

/** One compiled library and the features and limits that a device needs to run it. */
const library = record({
  file: string,
  device: string, // webgpu, llvm, cuda, ...
  dtype: string, // the compute dtype: float32 or float16
  required_features: list(string), // GPUFeatureName
  required_limits: mapping(integer), // GPUSupportedLimits names to values
  activation_bytes: mapping(integer), // of planned activations, by function
  launches: mapping(integer), // kernel launches per call, by function
  largest_binding_bytes: integer,
  memory_dtype: absentMeans("", string), // of matrices on the device, in a library for llvm; absent: the compute dtype
  instruction_set: absentMeans("", string), // of the processors that run a library for llvm: x86-64-v3, x86-64-v4, aarch64
  kernels: absentMeans([], list(functionKernels)), // of webgpu: they are compiled in this order, and not all are waited for
});

const tensorSpec = record({ name: string, shape: list(integer), dtype: string });

/**
 * One component: a function of the library, its inputs and outputs, and the params that it is called with. Components can
 * share a function, as ControlNets of one shape do, and they can share params.
 */
const componentSpec = record({
  function: string,
  inputs: list(tensorSpec),
  outputs: list(tensorSpec), // a function with several outputs returns one tuple
  params: list(string), // in the order of the compiled function's last argument
});

/** One of the bundle's ControlNets: the names of its two components, and how a picture uses it. */
const controlNetEntry = record({
  name: string, // unique in the bundle, for example canny
  control_embedding: string,
  controlnet: string,
  global_pool_conditions: absentMeans(false, boolean), // it averages its residuals and affects the prompt's context only
  kind: absentMeans("", string), // what its control images show, in ControlNet 1.1's words, if its name tells: canny, depth, ...
  graph: absentMeans("", string), // of its two functions; another ControlNet of an equal graph can be added to the bundle
});

/** A picture size and a length of prompts, and the functions that serve them with the components' own params. */
const variant = record({
  height: integer, // H, pixels
  width: integer, // W, pixels
  chunks: integer, // of a prompt: the context has this many times T tokens
  // By the component's function that they take the place of.
  functions: mapping(record({ function: string, inputs: list(tensorSpec), outputs: list(tensorSpec) })),
});

/** The place of one weight in the shards. It is stored little-endian, in C order. */
const paramRecord = record({
  name: string,
  shape: list(integer),
  dtype: string,
  shard: integer,
  byte_offset: integer,
  bytes: integer,
});

/** A weight that no shard holds: the GPU makes it of others, once, in the library's own dtype. */
const mergedParam = record({
  name: string,
  shape: list(integer),
  function: string, // of the library; it returns the weight
  sources: list(string), // the function's arguments
});

const quantizedParam = record({
  name: string,
  shape: list(integer),
  method: string, // linear or palette
  bits: integer, // of a code
  group: integer, // neighbouring inputs that share a scale, or outputs that share a palette
  words: string, // the param with its codes, uint32
  table: string, // the param with its scales or palettes, float16
});

/** One way to hold the weights of the components that draw. */
const memoryMode = record({
  peak_bytes: integer, // of GPU memory while a picture is drawn with one ControlNet
  step_upload_bytes: integer, // of weights that are uploaded in every denoising step
  kept_params: mapping(integer), // number of a component's leading params that stay on the GPU between its calls
});

const fileEntry = record({
  path: string, // relative to the bundle, with /
  bytes: integer,
  sha256: string, // 64 hex digits
});

/** A tokenizer's file, and how a prompt is padded to T tokens. */
const tokenizerSpec = record({
  file: string,
  max_length: integer, // T, which includes the begin and end tokens
  begin_id: integer,
  end_id: integer,
  pad_id: integer,
});

export const manifest = record({
  format_version: integer,
  model: modelSummary,
  target: string,
  libraries: list(library),
  components: mapping(componentSpec),
  controlnets: list(controlNetEntry),
  params: record({
    dtype: string,
    bytes: integer, // of all records, without alignment
    shards: list(string),
    records: list(paramRecord),
    merged: absentMeans([], list(mergedParam)),
    quantized: absentMeans([], list(quantizedParam)),
  }),
  tokenizer: tokenizerSpec,
  samplers: record({ file: string, default: string }),
  // For the options that a request leaves out.
  defaults: record({ steps: integer, guidance_scale: number, conditioning_scale: number }),
  // rgb (0..1) = weight [3, latent channels] @ x0 + bias [3] for each latent cell: a least-squares fit, computed at build time.
  latent_preview: record({ weight: list(list(number)), bias: list(number) }),
  // By library file: all weights stay on the GPU, or some are uploaded when a component needs them.
  memory: mapping(record({ resident: memoryMode, reduced: memoryMode })),
  parity_db: mapping(mapping(number)), // component, then library dtype
  versions: mapping(string),
  more_tokenizers: absentMeans([], list(tokenizerSpec)), // of the second text encoder, if there is one
  variants: absentMeans([], list(variant)), // besides the model's own size and one chunk, which the components serve
  files: list(fileEntry), // every file except the manifest
});

/** The content of a bundle's manifest.json, with its own keys. */
export type Manifest = Parsed<typeof manifest>;
export type Library = Parsed<typeof library>;
export type ComponentSpec = Parsed<typeof componentSpec>;
export type ControlNetEntry = Parsed<typeof controlNetEntry>;
export type Variant = Parsed<typeof variant>;
export type ParamRecord = Parsed<typeof paramRecord>;
export type MergedParam = Parsed<typeof mergedParam>;
/** A weight that is stored in few bits, as two params: kernels decode it. */
export type QuantizedParam = Parsed<typeof quantizedParam>;
export type MemoryMode = Parsed<typeof memoryMode>;
export type FileEntry = Parsed<typeof fileEntry>;
export type LatentPreview = Manifest["latent_preview"];
