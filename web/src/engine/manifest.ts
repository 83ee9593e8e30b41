/**
 * manifest.json: the contents of a bundle. Field names are the file's own.
 * Twin: mlc_controlnet/bundle/manifest.py.
 */

import {
  DRAWING,
  DTYPE_BYTES,
  FORMAT_VERSION,
  INPAINTING_CHANNELS,
  MANIFEST_NAME,
  RECORD_ALIGNMENT_BYTES,
} from "./constants.ts";
import { UserError } from "./errors.ts";
import {
  absentMeans,
  boolean,
  integer,
  list,
  mapping,
  number,
  type Parsed,
  parseJson,
  REMEDY,
  record,
  string,
} from "./json_record.ts";

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
  instruction_set: absentMeans("", string), // of the processors that run a library for llvm: x86-64-v3, x86-64-v4, aarch64
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

const manifest = record({
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

/**
 * Parse and validate; `where` names the file in errors.
 *
 * Throws UserError for anything that is not a complete manifest of this format version.
 */
export function parseManifest(bytes: Uint8Array, where: string = MANIFEST_NAME): Manifest {
  const raw = parseJson(bytes, where, "a bundle's manifest");
  const version = (raw as { format_version?: unknown } | null)?.format_version;
  if (version !== FORMAT_VERSION) {
    throw new UserError(
      `${where}: format_version`,
      JSON.stringify(version) ?? "none",
      String(FORMAT_VERSION),
      "build the bundle again with this version of mlc_controlnet",
      "bad-bundle",
    );
  }
  const parsed = manifest(raw, where);
  for (const [subject, got, wanted] of [...fileFaults(parsed), ...paramFaults(parsed), ...referenceFaults(parsed)]) {
    throw new UserError(`${where}: ${subject}`, got, wanted, REMEDY, "bad-bundle");
  }
  return parsed;
}

/** Height and width of the pictures that the bundle draws, in pixels; the first is the default. */
export function sizes({ model, variants }: Manifest): (readonly [height: number, width: number])[] {
  const all = [model, ...variants].map(({ height, width }) => [height, width] as const);
  return [...new Map(all.map((size) => [size.join("x"), size])).values()];
}

/** The largest number of chunks of a prompt. */
export function maxChunks({ variants }: Manifest): number {
  return Math.max(1, ...variants.map(({ chunks }) => chunks));
}

/** Return whether the UNet reads the guidance scale: guidance then takes one call of the UNet instead of two. */
export function embedsGuidance({ components }: Manifest): boolean {
  return components.unet.inputs.some((tensor) => tensor.name === "guidance_scale");
}

/** The ControlNets' outputs as the UNet reads them: one for each skip connection, then the middle block's. */
export function residuals({ components }: Manifest): ComponentSpec["outputs"] {
  return components.unet.inputs.filter((tensor) => tensor.name.includes("residual"));
}

/** The number of the text encoder's layers that lead to the context; of two, of the one with fewer. */
export function textLayers(parsed: Manifest): number {
  const encoders = ["text_encoder", "text_encoder_2"].filter((name) => name in parsed.components);
  return Math.min(...encoders.map((name) => layersOf(parsed, name)));
}

/** The number of a text encoder's layers that lead to its context. */
export function layersOf({ components }: Manifest, textEncoder: string): number {
  const [, layerGates] = components[textEncoder].inputs;
  return layerGates.shape[0];
}

/** Return whether this is Stable Diffusion XL: UNet and ControlNets read a pooled output and sizes of pictures. */
export function readsTimeIds({ components }: Manifest): boolean {
  return "text_encoder_2" in components;
}

/** Throws UserError if a component that drawing needs is missing, or the UNet has inputs that the pipeline lacks. */
export function checkCanDraw(parsed: Manifest, where: string): void {
  const drawing = drawingComponents(parsed);
  const missing = drawing.filter((name) => parsed.components[name] === undefined);
  if (missing.length) {
    const remedy = "build the bundle again without --component";
    throw new UserError(where, `no ${missing.join(", ")}`, drawing.join(", "), remedy, "bad-bundle");
  }
  const sample = sampleShape(parsed);
  const { latent_channels } = parsed.model;
  if (sample.length !== 4 || ![latent_channels, INPAINTING_CHANNELS].includes(sample[1])) {
    throw new UserError(
      `${where}: unet`,
      `a sample of [${sample.join(", ")}]`,
      `${latent_channels} channels, the latents, or an inpainting model's ${INPAINTING_CHANNELS}`,
      "call the components yourself: the pipeline supports these models only",
      "bad-bundle",
    );
  }
}

/** Return whether the UNet reads a mask and a masked picture: the pipeline then needs both. */
export function inpaints(parsed: Manifest): boolean {
  return sampleShape(parsed)[1] === INPAINTING_CHANNELS;
}

/** List the components that drawing needs: with a second text encoder, and an inpainting model's VAE encoder. */
export function drawingComponents(parsed: Manifest): readonly string[] {
  const second = readsTimeIds(parsed) ? ["text_encoder_2"] : [];
  return [...DRAWING, ...second, ...(inpaints(parsed) ? ["vae_encoder"] : [])];
}

function sampleShape({ components }: Manifest): readonly number[] {
  return components.unet?.inputs.find((tensor) => tensor.name === "sample")?.shape ?? [];
}

/** Return whether `path` is a plain relative path, which cannot leave its folder on any system. */
function isInside(path: string): boolean {
  return (
    path !== "" && !/[\\:\0]/.test(path) && path.split("/").every((part) => part !== "" && !/^\.{1,2}$/.test(part))
  );
}

type Complaint = [subject: string, got: string, wanted: string];

function* fileFaults(parsed: Manifest): Generator<Complaint> {
  const seen = new Set<string>();
  for (const entry of parsed.files) {
    if (!isInside(entry.path) || entry.path === MANIFEST_NAME) {
      yield ["files", JSON.stringify(entry.path), "a relative path inside the bundle"];
    }
    if (seen.has(entry.path)) yield ["files", `${entry.path} twice`, "every file once"];
    seen.add(entry.path);
    if (entry.bytes < 0 || !/^[0-9a-f]{64}$/.test(entry.sha256)) {
      yield [`files: ${entry.path}`, `${entry.bytes} bytes, sha256 '${entry.sha256}'`, "a size and 64 hex digits"];
    }
  }
}

function* paramFaults({ params, files }: Manifest): Generator<Complaint> {
  const sizes = new Map(files.map((entry) => [entry.path, entry.bytes]));
  const ends: number[] = params.shards.map(() => 0);
  const seen = new Set<string>();
  const inOrder = [...params.records].sort((a, b) => a.shard - b.shard || a.byte_offset - b.byte_offset);
  for (const entry of inOrder) {
    const subject = `params.records: ${entry.name}`;
    if (seen.has(entry.name)) yield [subject, "two records", "one"];
    seen.add(entry.name);
    if (entry.shard < 0 || entry.shard >= params.shards.length) {
      yield [subject, `shard ${entry.shard}`, `one of ${params.shards.length} shards`];
      continue;
    }
    const described = `${entry.dtype}[${entry.shape.join(", ")}]`;
    if (!Object.hasOwn(DTYPE_BYTES, entry.dtype) || entry.shape.some((size) => size < 1)) {
      yield [subject, described, `one of ${Object.keys(DTYPE_BYTES).join(", ")} and positive sizes`];
      continue;
    }
    const wantedBytes = entry.shape.reduce((product, size) => product * size, DTYPE_BYTES[entry.dtype]);
    if (entry.bytes !== wantedBytes) yield [subject, `${entry.bytes} bytes`, `${wantedBytes} bytes for ${described}`];
    if (entry.byte_offset % RECORD_ALIGNMENT_BYTES) {
      yield [subject, `byte_offset ${entry.byte_offset}`, `a multiple of ${RECORD_ALIGNMENT_BYTES}`];
    }
    if (entry.byte_offset < ends[entry.shard]) {
      const wanted = `${ends[entry.shard]} or more: records do not overlap`;
      yield [subject, `byte_offset ${entry.byte_offset}`, wanted];
    }
    ends[entry.shard] = entry.byte_offset + entry.bytes;
    const shardBytes = sizes.get(params.shards[entry.shard]) ?? 0;
    if (ends[entry.shard] > shardBytes) {
      yield [subject, `an end at byte ${ends[entry.shard]}`, `${shardBytes} at most, the shard's size`];
    }
  }
  yield* mergedFaults(params, seen);
  yield* quantizedFaults(params);
  const bytes = params.records.reduce((sum, entry) => sum + entry.bytes, 0);
  if (params.bytes !== bytes) yield ["params.bytes", String(params.bytes), `${bytes}, the sum of all records`];
}

function* mergedFaults({ merged }: Manifest["params"], records: ReadonlySet<string>): Generator<Complaint> {
  const seen = new Set(records);
  for (const { name, shape, sources } of merged) {
    const subject = `params.merged: ${name}`;
    if (seen.has(name)) yield [subject, "two weights", "one"];
    if (shape.some((size) => size < 1)) yield [subject, `a shape of [${shape.join(", ")}]`, "positive sizes"];
    const unknown = sources.find((source) => !records.has(source));
    if (unknown !== undefined) yield [subject, `${unknown}, which has no record`, "recorded params only"];
    seen.add(name);
  }
}

function* quantizedFaults({ quantized, records }: Manifest["params"]): Generator<Complaint> {
  const dtypes = new Map(records.map(({ name, dtype }) => [name, dtype]));
  for (const { name, shape, words, table } of quantized) {
    const subject = `params.quantized: ${name}`;
    if (shape.some((size) => size < 1)) yield [subject, `a shape of [${shape.join(", ")}]`, "positive sizes"];
    for (const [param, wanted] of [
      [words, "uint32"],
      [table, "float16"],
    ]) {
      const got = dtypes.get(param);
      if (got !== wanted) yield [subject, `${param}, of dtype ${got ?? "none"}`, `a recorded param of ${wanted}`];
    }
  }
}

function* referenceFaults(parsed: Manifest): Generator<Complaint> {
  const files = new Set(parsed.files.map((entry) => entry.path));
  const named: [string, string][] = [
    ...parsed.libraries.map(({ file }): [string, string] => [`libraries: ${file}`, file]),
    ...parsed.params.shards.map((shard): [string, string] => [`params.shards: ${shard}`, shard]),
    ["tokenizer", parsed.tokenizer.file],
    ...parsed.more_tokenizers.map(({ file }, i): [string, string] => [`more_tokenizers[${i}]`, file]),
    ["samplers", parsed.samplers.file],
  ];
  for (const [subject, path] of named) {
    if (!files.has(path)) yield [subject, `'${path}', which files does not list`, "a file of the bundle"];
  }
  if (!parsed.libraries.length) yield ["libraries", "none", "at least one"];
  const params = new Set([...parsed.params.records, ...parsed.params.merged].map((entry) => entry.name));
  for (const [name, component] of Object.entries(parsed.components)) {
    for (const param of component.params) {
      if (!params.has(param))
        yield [`components.${name}.params`, `${param}, which has no record`, "recorded params only"];
    }
  }
  yield* controlNetFaults(parsed);
  const functions = new Set(Object.values(parsed.components).map((component) => component.function));
  for (const { height, width, chunks, functions: others } of parsed.variants) {
    const unknown = Object.keys(others).filter((name) => !functions.has(name));
    if (unknown.length) {
      const got = `${unknown.sort().join(", ")}, no component's function`;
      yield [`variants: ${width}x${height}, ${chunks} chunks`, got, "components' functions"];
    }
  }
  yield* memoryFaults(parsed);
  const { weight, bias } = parsed.latent_preview;
  const channels = parsed.model.latent_channels;
  if (weight.length !== 3 || bias.length !== 3 || weight.some((row) => row.length !== channels)) {
    yield ["latent_preview", "another shape", `weight [3, ${channels}] and bias [3]`];
  }
}

function* controlNetFaults({ controlnets, components }: Manifest): Generator<Complaint> {
  const names = controlnets.map(({ name }) => name);
  if (new Set(names).size < names.length) yield ["controlnets", names.join(", "), "a name of its own for each"];
  for (const { name, control_embedding, controlnet } of controlnets) {
    for (const component of [control_embedding, controlnet]) {
      if (!Object.hasOwn(components, component)) {
        yield [`controlnets.${name}`, `'${component}', which is no component`, "components"];
      }
    }
  }
}

function* memoryFaults({ libraries, components, memory }: Manifest): Generator<Complaint> {
  for (const { file } of libraries) {
    if (!Object.hasOwn(memory, file)) yield ["memory", `none for ${file}`, "a plan for each library"];
  }
  for (const [file, { resident, reduced }] of Object.entries(memory)) {
    for (const { kept_params } of [resident, reduced]) {
      for (const [name, { params }] of Object.entries(components)) {
        const kept = Object.hasOwn(kept_params, name) ? kept_params[name] : -1;
        if (kept < 0 || kept > params.length) {
          yield [`memory: ${file}`, `${kept} params kept of ${name}`, `0 to ${params.length}`];
        }
      }
    }
  }
}
