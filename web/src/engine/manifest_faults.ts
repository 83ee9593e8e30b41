/** What types cannot express of a manifest: file names stay inside the bundle, and every reference has a target. */

import { DTYPE_BYTES, MANIFEST_NAME, RECORD_ALIGNMENT_BYTES } from "./constants.ts";
import type { Manifest } from "./manifest_schema.ts";

type Complaint = [subject: string, got: string, wanted: string];

/** List what contradicts itself in a manifest. */
export function* faultsOf(parsed: Manifest): Generator<Complaint> {
  yield* fileFaults(parsed);
  yield* paramFaults(parsed);
  yield* referenceFaults(parsed);
  yield* controlnetFaults(parsed);
  yield* variantFaults(parsed);
  yield* memoryFaults(parsed);
  yield* previewFaults(parsed);
}

/** Return whether `path` is a plain relative path, which cannot leave its folder on any system. */
function isInside(path: string): boolean {
  return (
    path !== "" && !/[\\:\0]/.test(path) && path.split("/").every((part) => part !== "" && !/^\.{1,2}$/.test(part))
  );
}

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
  for (const { file, device, memory_dtype } of parsed.libraries) {
    if (memory_dtype && (device !== "llvm" || memory_dtype !== "float16"))
      yield [`libraries: ${file}`, `memory_dtype ${memory_dtype} for ${device}`, "float16 for llvm, or none"];
  }
  const params = new Set([...parsed.params.records, ...parsed.params.merged].map((entry) => entry.name));
  for (const [name, component] of Object.entries(parsed.components)) {
    for (const param of component.params) {
      if (!params.has(param))
        yield [`components.${name}.params`, `${param}, which has no record`, "recorded params only"];
    }
  }
}

function* controlnetFaults({ controlnets, components }: Manifest): Generator<Complaint> {
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

function* variantFaults({ components, variants }: Manifest): Generator<Complaint> {
  const functions = new Set(Object.values(components).map((component) => component.function));
  for (const { height, width, chunks, functions: others } of variants) {
    const unknown = Object.keys(others).filter((name) => !functions.has(name));
    if (unknown.length) {
      const got = `${unknown.sort().join(", ")}, no component's function`;
      yield [`variants: ${width}x${height}, ${chunks} chunks`, got, "components' functions"];
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

function* previewFaults({ model, latent_preview }: Manifest): Generator<Complaint> {
  const { weight, bias } = latent_preview;
  const channels = model.latent_channels;
  if (weight.length !== 3 || bias.length !== 3 || weight.some((row) => row.length !== channels)) {
    yield ["latent_preview", "another shape", `weight [3, ${channels}] and bias [3]`];
  }
}
