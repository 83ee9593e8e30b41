// Records which shaders onnxruntime-web launches for a model on a given GPU, without that GPU and without computing.
// usage: node record_peer.mjs <folder with job.json>
// job: {"adapter": {vendor, architecture, ...}, "models": [{"name", "onnx": file, "weights": [file, ...],
// "inputs": [{"dtype", "shape"}]}]}; weights: files that the model's external data are in.
// Writes launches.json: {name: [{"program", "wgsl", "workgroups": [x, y, z], "uniforms": [u32, ...],
// "operand_bytes"}]}: a call after the first, which packs weights.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** @typedef {{ dtype: "float16" | "float32", shape: number[] }} Input */
/** @typedef {{ name: string, onnx: string, weights: string[], inputs: Input[] }} Model */
/** @typedef {{ program: string, wgsl: string }} Shader */
/** @typedef {Shader & { workgroups: number[], uniforms: number[], operand_bytes: number }} Launch */

const folder = process.argv[2];
/** @type {{ adapter: object, models: Model[] }} */
const job = JSON.parse(readFileSync(join(folder, "job.json"), "utf8"));
/** @type {Launch[]} */
let launches = [];

/**
 * Replace methods of an object, which keep the original as their first argument.
 *
 * @param {any} object @param {Record<string, (original: any, ...rest: any[]) => any>} methods
 */
function wrap(object, methods) {
  for (const [name, method] of Object.entries(methods)) {
    const original = object[name].bind(object);
    Object.defineProperty(object, name, { value: (/** @type {any[]} */ ...rest) => method(original, ...rest) });
  }
  return object;
}

/** @type {Map<any, Shader>} */
const codes = new Map();
/** @type {Map<any, Shader | undefined>} */
const pipelines = new Map();
/** @type {WeakMap<any, any[]>} */
const groups = new WeakMap();
/** @type {WeakMap<any, Uint8Array>} */
const contents = new WeakMap();

/** @param {any} buffer @param {number} offset @param {Uint8Array} bytes */
function keep(buffer, offset, bytes) {
  if (!(buffer.usage & GPUBufferUsage.UNIFORM)) return;
  const content = contents.get(buffer) ?? new Uint8Array(buffer.size);
  content.set(bytes.subarray(0, buffer.size - offset), offset);
  contents.set(buffer, content);
}

/** @param {any} data @param {number} [from] @param {number} [size] */
function bytesOf(data, from = 0, size = undefined) {
  const unit = ArrayBuffer.isView(data) && "BYTES_PER_ELEMENT" in data ? Number(data.BYTES_PER_ELEMENT) : 1;
  const view = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  return view.slice(from * unit, size === undefined ? undefined : (from + size) * unit);
}

/** @param {any} pass */
function watchPass(pass) {
  /** @type {Shader | undefined} */
  let shader;
  /** @type {any} */
  let group;
  return wrap(pass, {
    setPipeline(original, chosen) {
      shader = pipelines.get(chosen);
      original(chosen);
    },
    setBindGroup(original, index, chosen, ...rest) {
      if (index === 0) group = chosen;
      original(index, chosen, ...rest);
    },
    dispatchWorkgroups(_original, x, y = 1, z = 1) {
      if (shader === undefined) throw new Error("a launch without a pipeline");
      const uniform = Number(shader.wgsl.match(/@binding\((\d+)\)\s*var<uniform>/)?.[1]);
      /** @type {{ binding: number, resource: any }[]} */
      const entries = groups.get(group) ?? [];
      const buffers = new Map(entries.map(({ binding, resource }) => [binding, resource.buffer ?? resource]));
      const content = contents.get(buffers.get(uniform));
      const tensors = new Set(entries.filter(({ binding }) => binding !== uniform).map(({ resource }) => resource));
      launches.push({
        ...shader,
        workgroups: [x, y, z],
        uniforms: content ? [...new Uint32Array(content.buffer, 0, content.byteLength >> 2)] : [],
        operand_bytes: [...tensors].reduce((sum, one) => sum + (one.size ?? one.buffer.size), 0),
      });
    },
    dispatchWorkgroupsIndirect() {
      throw new Error("a launch whose workgroups only the GPU knows");
    },
  });
}

/** @param {any} device */
function watchDevice(device) {
  /** @param {any} pipeline @param {{ compute: { module: any } }} descriptor */
  const made = (pipeline, { compute }) => {
    pipelines.set(pipeline, codes.get(compute.module));
    return pipeline;
  };
  const queue = wrap(device.queue, {
    writeBuffer(original, buffer, offset, data, from, size) {
      const bytes = bytesOf(data, from, size);
      keep(buffer, offset, bytes);
      original(buffer, offset, bytes); // a copy: Dawn's Node build refuses to write from shared memory
    },
  });
  Object.defineProperty(device, "queue", { value: queue });
  return wrap(device, {
    createShaderModule(original, descriptor) {
      const module = original(descriptor);
      codes.set(module, { program: descriptor.label ?? "", wgsl: descriptor.code });
      return module;
    },
    createComputePipeline: (original, descriptor) => made(original(descriptor), descriptor),
    createComputePipelineAsync: async (original, descriptor) => made(await original(descriptor), descriptor),
    createBindGroup(original, descriptor) {
      const group = original(descriptor);
      groups.set(group, descriptor.entries);
      return group;
    },
    createCommandEncoder: (original, ...rest) =>
      wrap(original(...rest), { beginComputePass: (begin, ...options) => watchPass(begin(...options)) }),
  });
}

async function openRuntime() {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  const gpu = wrap(create(["enable-dawn-features=allow_unsafe_apis,disable_workgroup_init"]), {
    async requestAdapter(original, options) {
      const adapter = await original(options);
      Object.defineProperty(adapter, "info", { value: { ...infoOf(adapter.info), ...job.adapter } });
      return wrap(adapter, {
        async requestDevice(request, descriptor) {
          const device = await request(descriptor);
          Object.defineProperty(device, "adapterInfo", { value: adapter.info });
          return watchDevice(device);
        },
      });
    },
  });
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
  const dist = resolve(import.meta.dirname, "..", "..", "node_modules", "onnxruntime-web", "dist");
  const ort = await import(pathToFileURL(join(dist, "ort.webgpu.min.mjs")).href);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = pathToFileURL(`${dist}/`).href;
  ort.env.wasm.numThreads = 1;
  return ort;
}

/** @param {any} info */
function infoOf(info) {
  const names = ["vendor", "architecture", "device", "description", "subgroupMinSize", "subgroupMaxSize"];
  return Object.fromEntries([...names, "isFallbackAdapter"].map((name) => [name, info[name]]));
}

/** @param {Model} model */
async function record({ name, onnx, weights, inputs }) {
  const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(join(folder, onnx))), {
    // "simple": a buffer has its tensor's size. The default, "bucket", makes it up to twice as large.
    executionProviders: [{ name: "webgpu", storageBufferCacheMode: "simple" }],
    externalData: weights.map((path) => ({ path, data: new Uint8Array(readFileSync(join(folder, path))) })),
    preferredOutputLocation: "gpu-buffer",
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
  });
  /** @type {Record<string, any>} */
  const feeds = {};
  inputs.forEach(({ dtype, shape }, index) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = dtype === "float16" ? new Uint16Array(count) : new Float32Array(count);
    feeds[session.inputNames[index]] = new ort.Tensor(dtype, values, shape);
  });
  for (let call = 0; call < 2; call++) {
    launches = [];
    for (const output of Object.values(await session.run(feeds))) output.dispose();
  }
  const recorded = [...launches]; // a copy: closing this session and opening the next one launch too
  await session.release();
  console.error(`${name}: ${recorded.length} launches`);
  return recorded;
}

const ort = await openRuntime();
/** @type {Record<string, Launch[]>} */
const found = {};
for (const model of job.models) {
  try {
    found[model.name] = await record(model);
  } catch (error) {
    console.error(`${model.name}: ${String(error).slice(0, 300)}`);
  }
}
writeFileSync(join(folder, "launches.json"), JSON.stringify(found));
process.exit(0);
