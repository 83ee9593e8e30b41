import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Context } from "../../src/engine/components";
import { Engine } from "../../src/engine/engine";
import { UserError } from "../../src/engine/errors";
import type { Bundle } from "../../src/engine/load";
import type { FunctionCall } from "../../src/engine/machine";
import type { Library, Manifest } from "../../src/engine/manifest";
import { type Memory, MemoryFullError } from "../../src/engine/memory";
import type { Progress } from "../../src/engine/progress";
import { DEPTH, FILES, keptParams, LINES, makeInpaintingManifest, makeLibrary, makeManifest } from "./sample_bundle";

/** What a library's kernels are told of, by name. */
const KERNELS = vi.hoisted(() => ({ decode_kernel: {}, encode_kernel: {}, add_kernel: {}, denoise_kernel: {} }));

/** tvmjs, as far as the engine uses it: tensors hold bytes, and what is alive is counted. */
const tvm = vi.hoisted(() => {
  const state = {
    alive: 0,
    tensors: 0,
    scopeDepth: 0,
    /** Every call of the function that clears TVM's pool of workspaces. */
    cleared: [] as string[],
    /** What each component's function does with its arguments. */
    run: {} as Record<string, (...args: unknown[]) => unknown>,
    /** Settles when the device has done its work. */
    synced: Promise.resolve() as Promise<void>,
    /** Each list of kernels that is compiled together. */
    compiling: [] as string[][],
    /** Settles when the kernels of a list are there. */
    compiled: (_kernels: string[]): Promise<void> => Promise.resolve(),
  };
  class Disposable {
    disposed = false;
    holders = 1;
    constructor() {
      state.alive++;
    }
    dispose() {
      if (!this.disposed) this.release();
      this.disposed = true;
    }
    release() {
      if (--this.holders === 0) state.alive--;
    }
  }
  class Tensor extends Disposable {
    bytes = new Uint8Array();
    constructor(
      readonly shape: number[],
      readonly dtype: string,
      readonly device: string,
    ) {
      super();
      state.tensors++;
    }
    override release() {
      super.release();
      if (this.holders === 0) state.tensors--;
    }
    copyFromRawBytes(bytes: Uint8Array) {
      this.bytes = bytes.slice();
      return this;
    }
    copyFrom(source: Tensor) {
      this.bytes = source.bytes;
      return this;
    }
    toRawBytes() {
      return this.bytes;
    }
  }
  class TVMArray extends Disposable {
    constructor(readonly items: Tensor[]) {
      super();
    }
    size() {
      return this.items.length;
    }
    get(i: number) {
      return this.items[i];
    }
  }
  /** Beside what made them it holds its items. */
  class ParamsArray extends TVMArray {
    constructor(items: Tensor[]) {
      super(items);
      for (const item of items) item.holders++;
    }
    override release() {
      super.release();
      for (const item of this.items) item.release();
    }
  }
  const instance = {
    beginScope: () => state.scopeDepth++,
    endScope: () => state.scopeDepth--,
    detachFromCurrentScope: <T>(object: T) => object,
    initWebGPU: vi.fn(),
    webgpu: () => ({ sync: () => state.synced, toString: () => "gpu" }),
    cpu: () => "cpu",
    empty: (shape: number[], dtype: string, device: unknown) => new Tensor(shape, dtype, String(device)),
    getGlobalFunc: (name: string) => () => state.cleared.push(name),
    makeTVMArray: (items: Tensor[]) => new ParamsArray(items),
    createVirtualMachine: () =>
      Object.assign(new Disposable(), {
        getInternalModule: () => ({ getFunction: () => () => JSON.stringify(KERNELS) }),
        getFunction: (name: string) =>
          Object.assign((...args: unknown[]) => state.run[name](...args), { dispose: () => {} }),
      }),
    asyncLoadWebGPUPipelines: ({ getFunction }: { getFunction: (name: string) => () => string }) => {
      const kernels = Object.keys(JSON.parse(getFunction("webgpu.get_fmap")()));
      state.compiling.push(kernels);
      return state.compiled(kernels);
    },
    runtimeStatsText: () => "peak-memory=21 MB, all-memory=40 MB, shader-submissions=1234",
    dispose: vi.fn(),
  };
  return { state, Tensor, TVMArray, instance, instantiate: async () => instance };
});
vi.mock("@mlc-ai/web-runtime", () => tvm);
/** The machine makes every call here; command_lists.test.ts has the lists. */
vi.mock("../../src/engine/command_lists", async () => {
  const { callMachine, freePool } = await import("../../src/engine/machine");
  class CommandLists {
    constructor(private readonly instance: typeof tvm.instance) {}
    call(call: FunctionCall) {
      return callMachine(this.instance as never, call);
    }
    free() {
      freePool(this.instance as never);
    }
    launched(counted: number) {
      return counted + 1000;
    }
  }
  return { CommandLists };
});

type FakeTensor = InstanceType<typeof tvm.Tensor>;

const floats = (tensor: FakeTensor) => [...new Float32Array(tensor.bytes.slice().buffer)];
const gpuTensor = (...values: number[]) =>
  new tvm.Tensor([values.length], "float32", "gpu").copyFromRawBytes(new Uint8Array(Float32Array.from(values).buffer));

const host = (name: string, dtype = "float32") => ({ name, shape: [2], dtype });
const compute = (name: string) => host(name, "compute");

/** Two weights, 1 and -2 as float16, that the unet takes in the other order. */
const records = [
  { name: "unet.first", shape: [1], dtype: "float16", shard: 0, byte_offset: 0, bytes: 2 },
  { name: "unet.second", shape: [1], dtype: "float16", shard: 0, byte_offset: 4, bytes: 2 },
];
const shard = Uint8Array.of(0x00, 0x3c, 0, 0, 0x00, 0xc0, 0, 0);

const manifest: Manifest = {
  ...makeManifest(),
  components: {
    text_encoder: {
      function: "text_encoder",
      inputs: [host("token_ids", "int32"), host("layer_gates")],
      outputs: [{ name: "context", shape: [1, 2, 1], dtype: "compute" }],
      params: [],
    },
    control_embedding: { function: "control_embedding", inputs: [host("control_image")], outputs: [], params: [] },
    controlnet: {
      function: "controlnet",
      inputs: [
        host("sample"),
        host("timestep"),
        compute("context"),
        compute("control_embedding"),
        host("conditioning_scales"),
      ],
      outputs: [compute("down_residual_0"), compute("mid_residual")],
      params: [],
    },
    unet: {
      function: "unet",
      inputs: [
        host("sample"),
        host("timestep"),
        compute("context"),
        compute("down_residual_0"),
        compute("mid_residual"),
      ],
      outputs: [],
      params: ["unet.second", "unet.first"],
    },
    vae_decoder: { function: "vae_decoder", inputs: [host("latents")], outputs: [], params: [] },
  },
  params: { ...makeManifest().params, records },
};

let readFile: Bundle["readFile"];
let loseDevice: (info: GPUDeviceLostInfo) => void;
let device: GPUDevice;
let reportGpuError: (event: { error: { message: string } }) => void;

beforeEach(() => {
  Object.assign(tvm.state, {
    alive: 0,
    scopeDepth: 0,
    cleared: [],
    synced: Promise.resolve(),
    compiling: [],
    compiled: () => Promise.resolve(),
  });
  tvm.state.run = {
    text_encoder: () => gpuTensor(5),
    control_embedding: () => gpuTensor(6),
    controlnet: () => new tvm.TVMArray([gpuTensor(7), gpuTensor(8)]),
    unet: () => gpuTensor(1, 2),
    vae_decoder: () => gpuTensor(3),
  };
  tvm.instance.dispose.mockClear();
  readFile = async (path) => (path === "params/00.bin" ? shard : FILES[path]);
  device = {
    lost: new Promise((resolve) => {
      loseDevice = resolve;
    }),
    features: new Set(),
    createBuffer: vi.fn(({ size }) => ({ size, destroy: vi.fn() })),
    createBindGroup: vi.fn(),
    createCommandEncoder: vi.fn(),
    queue: { submit: vi.fn(), writeBuffer: vi.fn() },
    addEventListener: (_: string, listener: typeof reportGpuError) => {
      reportGpuError = listener;
    },
    createComputePipelineAsync: vi.fn(),
    destroy: vi.fn(),
  } as unknown as GPUDevice;
});

interface LoadTestOptions {
  onProgress?: (progress: Progress) => void;
  dtype?: string;
  signal?: AbortSignal;
  memory?: Memory;
  manifest?: Manifest;
  kernels?: Library["kernels"];
}

function load(options: LoadTestOptions = {}) {
  const bundle = {
    manifest: options.manifest ?? manifest,
    readFile: (path: string, read: object) => readFile(path, read),
  } as Bundle;
  const library = makeLibrary({ dtype: options.dtype ?? "float32", kernels: options.kernels ?? [] });
  const opened = { device, library, description: "fake", maxBufferBytes: 2 ** 28 };
  return Engine.load(bundle, opened, options.memory ?? keeping({ unet: 2 }), options);
}

/** A memory plan that keeps so many params of each component. */
function keeping(kept: Record<string, number>): Memory {
  return { name: "resident", peak_bytes: 0, step_upload_bytes: 0, kept_params: { ...keptParams(0), ...kept } };
}

/** One turn of the ControlNet and one of the unet. */
async function drawStep(engine: Engine, context: Context) {
  const control = await engine.controlEmbedding(sample, LINES);
  const residuals = await engine.controlnet(sample, 9, context, control, [1, 1]);
  await engine.unet(sample, 9, context, residuals);
  for (const value of [control, residuals]) value.dispose();
}

/** Every component once, which makes the tensors that the host writes. The last turn is the decoder's. */
async function warmUp(engine: Engine) {
  const context = await engine.textEncoder(Int32Array.of(1));
  await drawStep(engine, context);
  context.dispose();
  await engine.vaeDecoder(sample);
}

const sample = Float32Array.of(0.5, 0.25);

describe("a component", () => {
  test("is called with its params last, in the manifest's order, widened to float32", async () => {
    const unet = vi.fn<(...args: unknown[]) => unknown>(() => gpuTensor(1, 2));
    tvm.state.run.unet = unet;
    const engine = await load();
    const context = await engine.textEncoder(Int32Array.of(1, 2));
    await drawStep(engine, context);
    const params = unet.mock.calls[0].at(-1) as InstanceType<typeof tvm.TVMArray>;
    expect(params.items.map((item) => [item.dtype, ...floats(item)])).toEqual([
      ["float32", -2],
      ["float32", 1],
    ]);
  });

  test("keeps float16 weights for a float16 library, an odd number of them too", async () => {
    const unet = vi.fn<(...args: unknown[]) => unknown>(() => gpuTensor(1));
    tvm.state.run.unet = unet;
    const engine = await load({ dtype: "float16" });
    const context = await engine.textEncoder(Int32Array.of(1));
    await drawStep(engine, context);
    const params = unet.mock.calls[0].at(-1) as InstanceType<typeof tvm.TVMArray>;
    expect(params.items.map((item) => [item.dtype, ...item.bytes])).toEqual([
      ["float16", 0x00, 0xc0],
      ["float16", 0x00, 0x3c],
    ]);
  });

  test("gets numbers from the host in the same tensors each time, and other components' tensors as they are", async () => {
    const seen: unknown[][] = [];
    tvm.state.run.controlnet = (...args) => {
      seen.push([...args]);
      return new tvm.TVMArray([gpuTensor(7)]);
    };
    const contextTensor = gpuTensor(5);
    tvm.state.run.text_encoder = () => contextTensor;
    const engine = await load();
    const context = await engine.textEncoder(Int32Array.of(1, 2));
    const control = await engine.controlEmbedding(sample, LINES);
    await engine.controlnet(sample, 9, context, control, [0.75, 0.5]);
    await engine.controlnet(sample, 8, context, control, [0.75, 0.5]);
    expect(seen[1][0]).toBe(seen[0][0]);
    expect(seen[0][2]).toBe(contextTensor);
    expect(floats(seen[0][3] as FakeTensor)).toEqual([6]);
    expect(floats(seen[0][0] as FakeTensor)).toEqual([0.5, 0.25]);
    expect(floats(seen[1][1] as FakeTensor)).toEqual([8]);
    expect(floats(seen[0][4] as FakeTensor)).toEqual([0.75, 0.5]);
  });

  test("that encodes text skips as many of its last layers as it is told", async () => {
    const gates: number[][] = [];
    tvm.state.run.text_encoder = (_, layerGates) => {
      gates.push(floats(layerGates as FakeTensor));
      return gpuTensor(5);
    };
    const engine = await load();
    for (const clipSkip of [undefined, 0, 1]) (await engine.textEncoder(Int32Array.of(1), clipSkip)).dispose();
    expect(gates).toEqual([
      [1, 1],
      [1, 1],
      [1, 0],
    ]);
  });

  test.each([
    ["float32", [0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x00, 0xc0]],
    ["float16", [0x00, 0x3c, 0x00, 0xc0]],
  ])("reads a context that the host computed, in %s", async (dtype, bytes) => {
    const seen: FakeTensor[] = [];
    tvm.state.run.unet = (...args) => {
      seen.push(args[2] as FakeTensor);
      return gpuTensor(1, 2);
    };
    const engine = await load({ dtype });
    const context = await engine.context(Float32Array.of(1, -2));
    await drawStep(engine, context);
    expect([seen[0].shape, seen[0].dtype, ...seen[0].bytes]).toEqual([[1, 2, 1], dtype, ...bytes]);
  });

  test("gives the unet every residual of the ControlNet", async () => {
    const unet = vi.fn<(...args: unknown[]) => unknown>(() => gpuTensor(1, 2));
    tvm.state.run.unet = unet;
    const engine = await load();
    const context = await engine.textEncoder(Int32Array.of(1));
    await drawStep(engine, context);
    expect(unet.mock.calls[0].slice(3, 5).map((tensor) => floats(tensor as FakeTensor))).toEqual([[7], [8]]);
  });

  test("finds zeros in place of the ControlNet's residuals where it is not called", async () => {
    const unet = vi.fn<(...args: unknown[]) => unknown>(() => gpuTensor(1, 2));
    tvm.state.run.unet = unet;
    const engine = await load({ dtype: "float16" });
    await warmUp(engine);
    unet.mockClear();
    const context = await engine.textEncoder(Int32Array.of(1));
    const before = tvm.state.tensors;
    const residuals = await engine.zeroResiduals();
    await engine.unet(sample, 9, context, residuals);
    const seen = unet.mock.calls[0].slice(3, 5) as FakeTensor[];
    expect(seen.map(({ shape, dtype, bytes }) => [shape, dtype, ...bytes])).toEqual([
      [[2], "float16", 0, 0, 0, 0],
      [[2], "float16", 0, 0, 0, 0],
    ]);
    residuals.dispose();
    expect(tvm.state.tensors).toBe(before);
  });

  test("that shares another's function is called with its own params, and reads the same tensors", async () => {
    const seen: unknown[][] = [];
    tvm.state.run.controlnet = (...args) => {
      seen.push([...args]);
      return new tvm.TVMArray([gpuTensor(7), gpuTensor(8)]);
    };
    const { control_embedding, controlnet, unet } = manifest.components;
    const components = {
      ...manifest.components,
      unet: { ...unet, params: [] },
      controlnet: { ...controlnet, params: ["unet.first"] },
      control_embedding_2: control_embedding,
      controlnet_2: { ...controlnet, params: ["unet.second"] },
      residual_sum: { function: "residual_sum", inputs: [], outputs: [], params: [] },
    };
    const kept = keeping({ controlnet: 1, controlnet_2: 1, control_embedding_2: 0, residual_sum: 0 });
    const engine = await load({ manifest: { ...manifest, components, controlnets: [LINES, DEPTH] }, memory: kept });
    const context = await engine.textEncoder(Int32Array.of(1));
    await engine.require(["controlnet", "controlnet_2", "control_embedding_2"]);
    for (const controlnet of [LINES, DEPTH]) {
      const control = await engine.controlEmbedding(sample, controlnet);
      expect(control.controlnet).toBe(controlnet);
      await engine.controlnet(sample, 9, context, control, [1, 1]);
    }
    const params = seen.map((args) => (args.at(-1) as InstanceType<typeof tvm.TVMArray>).items.flatMap(floats));
    expect(params).toEqual([[1], [-2]]);
    expect(seen[1][0]).toBe(seen[0][0]);
  });

  test("adds the residuals of two ControlNets", async () => {
    const residual_sum = vi.fn<(...args: unknown[]) => unknown>(() => new tvm.TVMArray([gpuTensor(9), gpuTensor(10)]));
    tvm.state.run.residual_sum = residual_sum;
    const sum = { function: "residual_sum", inputs: Array(4).fill(compute("_")), outputs: [], params: [] };
    const components = { ...manifest.components, residual_sum: sum };
    const engine = await load({ manifest: { ...manifest, components }, memory: keeping({ unet: 2, residual_sum: 0 }) });
    const context = await engine.textEncoder(Int32Array.of(1));
    const control = await engine.controlEmbedding(sample, LINES);
    const residuals = await engine.controlnet(sample, 9, context, control, [1, 1]);
    const total = await engine.residualSum(residuals, residuals);
    expect(residual_sum.mock.calls[0].slice(0, 4).map((tensor) => floats(tensor as FakeTensor))).toEqual([
      [7],
      [8],
      [7],
      [8],
    ]);
    expect(await total.read()).toEqual([Float32Array.of(9), Float32Array.of(10)]);
  });

  test("that encodes pictures is there for an inpainting model", async () => {
    tvm.state.run.vae_encoder = (image) => gpuTensor(...floats(image as FakeTensor).map((value) => 2 * value));
    const { unet } = makeInpaintingManifest().components;
    const vae_encoder = { function: "vae_encoder", inputs: [host("image")], outputs: [host("moments")], params: [] };
    const components = { ...manifest.components, unet, vae_encoder };
    const engine = await load({ manifest: { ...manifest, components } });
    expect([...(await engine.vaeEncoder(sample))]).toEqual([1, 0.5]);
    engine.unload();
    expect(tvm.state.alive).toBe(0);
  });

  test("that throws leaves the engine usable and no scope open", async () => {
    const engine = await load();
    tvm.state.run.text_encoder = () => {
      throw new Error("shape mismatch");
    };
    await expect(engine.textEncoder(Int32Array.of(1))).rejects.toThrow("shape mismatch");
    expect(tvm.state.scopeDepth).toBe(0);
    expect([...(await engine.vaeDecoder(sample))]).toEqual([3]);
  });

  test("that traps makes the engine unusable: its memory is in an unknown state", async () => {
    const engine = await load();
    tvm.state.run.text_encoder = () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await expect(engine.textEncoder(Int32Array.of(1))).rejects.toThrow("unreachable");
    await expect(engine.vaeDecoder(sample)).rejects.toThrow("unreachable");
  });
});

describe("memory", () => {
  test("weights that do not stay are on the GPU in their component's turn alone", async () => {
    const engine = await load({ memory: keeping({ unet: 1 }) });
    await warmUp(engine);
    const before = tvm.state.tensors; // one weight of the unet's two, and the slots
    const during: Record<string, number> = {};
    const lookAt = (name: string, output: () => unknown) => {
      tvm.state.run[name] = () => {
        during[name] = tvm.state.tensors - before;
        return output();
      };
    };
    lookAt("unet", () => gpuTensor(1, 2));
    lookAt("vae_decoder", () => gpuTensor(3));
    const context = await engine.textEncoder(Int32Array.of(1));
    await drawStep(engine, context);
    context.dispose();
    await engine.vaeDecoder(sample);
    expect(during.unet).toBe(/* the second weight */ 1 + /* context, control, two residuals */ 4);
    expect(during.vae_decoder).toBe(0);
  });

  test("a weight comes back as it was, and the same turn uploads it once", async () => {
    const seen: number[][] = [];
    tvm.state.run.unet = (...args) => {
      seen.push((args.at(-1) as InstanceType<typeof tvm.TVMArray>).items.flatMap(floats));
      return gpuTensor(1, 2);
    };
    const engine = await load({ memory: keeping({}) });
    const context = await engine.textEncoder(Int32Array.of(1));
    for (let i = 0; i < 2; i++) await drawStep(engine, context);
    expect(seen).toEqual([
      [-2, 1],
      [-2, 1],
    ]);
  });

  test("two calls that are made at once share a turn", async () => {
    const tuples: unknown[] = [];
    tvm.state.run.unet = (...args) => {
      tuples.push(args.at(-1));
      return gpuTensor(1, 2);
    };
    const engine = await load({ memory: keeping({}) });
    const context = await engine.textEncoder(Int32Array.of(1));
    const residuals = await engine.controlnet(sample, 9, context, await engine.controlEmbedding(sample, LINES), [1, 1]);
    await Promise.all([engine.unet(sample, 9, context, residuals), engine.unet(sample, 9, context, residuals)]);
    expect(tuples).toHaveLength(2);
    expect(tuples[0]).toBe(tuples[1]);
  });

  test("what is freed is waited for before anything comes in its place", async () => {
    const engine = await load({ memory: keeping({}) });
    let finish = () => {};
    const context = await engine.textEncoder(Int32Array.of(1));
    const residuals = await engine.controlnet(sample, 9, context, await engine.controlEmbedding(sample, LINES), [1, 1]);
    tvm.state.synced = new Promise((resolve) => (finish = resolve));
    const before = tvm.state.tensors;
    const output = engine.unet(sample, 9, context, residuals);
    await new Promise((resolve) => setTimeout(resolve));
    expect(tvm.state.tensors).toBe(before);
    finish();
    await output;
  });

  test("a device that is lost while weights come ends the call", async () => {
    const engine = await load({ memory: keeping({}) });
    const context = await engine.textEncoder(Int32Array.of(1));
    const residuals = await engine.controlnet(sample, 9, context, await engine.controlEmbedding(sample, LINES), [1, 1]);
    tvm.state.synced = new Promise(() => {});
    const output = engine.unet(sample, 9, context, residuals);
    loseDevice({ reason: "destroyed", message: "" } as GPUDeviceLostInfo);
    await expect(output).rejects.toBeInstanceOf(MemoryFullError);
  });

  test("workspaces are freed when a picture's step does not need them again", async () => {
    const engine = await load();
    const context = await engine.textEncoder(Int32Array.of(1));
    await drawStep(engine, context); // its control embedding is the last thing before the steps
    const beforeSteps = tvm.state.cleared.length;
    const control = await engine.controlEmbedding(sample, LINES);
    for (let i = 0; i < 3; i++) {
      const residuals = await engine.controlnet(sample, 9, context, control, [1, 1]);
      await engine.unet(sample, 9, context, residuals);
    }
    expect(tvm.state.cleared.length - beforeSteps).toBe(2); // before the control embedding and after it
    await engine.vaeDecoder(sample);
    expect(tvm.state.cleared.length - beforeSteps).toBe(4); // before the decoder and after it
    expect(new Set(tvm.state.cleared)).toEqual(new Set(["vm.builtin.memory_manager.clear"]));
  });
});

describe("a merged weight", () => {
  /** Of the unet's first weight, 1, and a factor, 4: the GPU makes the ControlNet's weight of both. */
  const factor = { name: "lines.up", shape: [1], dtype: "float16", shard: 1, byte_offset: 0, bytes: 2 };
  const merged = { name: "lines.weight", shape: [1], function: "merge", sources: ["unet.first", "lines.up"] };
  const { components, params } = manifest;
  const lora: Manifest = {
    ...manifest,
    components: { ...components, controlnet: { ...components.controlnet, params: ["unet.second", "lines.weight"] } },
    params: {
      ...params,
      shards: ["params/00.bin", "params/01.bin"],
      records: [...records, factor],
      merged: [merged],
    },
  };
  let fetched: string[];
  let merges: number[][];
  let seen: number[][];

  beforeEach(() => {
    [fetched, merges, seen] = [[], [], []];
    const whole = readFile;
    readFile = async (path, options) => {
      fetched.push(path);
      return path === "params/01.bin" ? Uint8Array.of(0x00, 0x44, 0, 0) : whole(path, options);
    };
    tvm.state.run.merge = (...args) => {
      merges.push(args.flatMap((tensor) => floats(tensor as FakeTensor)));
      return gpuTensor(5);
    };
    tvm.state.run.controlnet = (...args) => {
      seen.push((args.at(-1) as InstanceType<typeof tvm.TVMArray>).items.flatMap(floats));
      return new tvm.TVMArray([gpuTensor(7), gpuTensor(8)]);
    };
  });

  test.each([
    ["stays", { unet: 2, controlnet: 2 }],
    ["comes and goes", { unet: 0, controlnet: 0 }],
    ["stays, and what it is made of comes and goes", { unet: 0, controlnet: 2 }],
  ])("is made once, and %s", async (_, kept) => {
    const engine = await load({ manifest: lora, memory: keeping(kept) });
    expect(fetched).toContain("params/01.bin");
    expect(merges).toEqual([[1, 4]]);
    const context = await engine.textEncoder(Int32Array.of(1));
    for (let i = 0; i < 3; i++) await drawStep(engine, context);
    expect(merges).toHaveLength(1);
    expect(seen).toEqual(Array(3).fill([-2, 5]));
  });

  test("takes the place of its factors, on the GPU too", async () => {
    const whole = await load({ memory: keeping({ unet: 2 }) });
    await warmUp(whole);
    const before = tvm.state.tensors;
    whole.unload();
    const empty = tvm.state.tensors;
    const engine = await load({ manifest: lora, memory: keeping({ unet: 2, controlnet: 2 }) });
    await warmUp(engine);
    expect(tvm.state.tensors - empty).toBe(before - empty + 1);
    await engine.require(["controlnet"]); // the factors are not fetched again
    expect(fetched.filter((path) => path === "params/01.bin")).toHaveLength(1);
    engine.unload();
    expect(tvm.state.tensors).toBe(empty);
  });

  test("of a further ControlNet is made when a picture uses it", async () => {
    const ofTwo: Manifest = {
      ...lora,
      components: {
        ...components,
        control_embedding_2: components.control_embedding,
        controlnet_2: lora.components.controlnet,
      },
      controlnets: [LINES, DEPTH],
    };
    const kept = { unet: 2, controlnet_2: 2, control_embedding_2: 0 };
    const engine = await load({ manifest: ofTwo, memory: keeping(kept) });
    expect(fetched).not.toContain("params/01.bin");
    await engine.require(["controlnet_2", "control_embedding_2"]);
    expect(merges).toEqual([]);
    const context = await engine.textEncoder(Int32Array.of(1));
    const control = await engine.controlEmbedding(sample, DEPTH);
    for (let i = 0; i < 2; i++) (await engine.controlnet(sample, 9, context, control, [1, 1])).dispose();
    expect(merges).toEqual([[1, 4]]);
    expect(seen).toEqual(Array(2).fill([-2, 5]));
  });
});

describe("reading", () => {
  test("waits for the device", async () => {
    const engine = await load();
    let finish = () => {};
    tvm.state.synced = new Promise((resolve) => (finish = resolve));
    let done = false;
    const read = engine.vaeDecoder(sample).then(() => (done = true));
    await new Promise((resolve) => setTimeout(resolve));
    expect(done).toBe(false);
    finish();
    await read;
  });

  test("widens float16", async () => {
    tvm.state.run.text_encoder = () =>
      new tvm.Tensor([1], "float16", "gpu").copyFromRawBytes(Uint8Array.of(0x00, 0xc0));
    const engine = await load();
    expect(await (await engine.textEncoder(Int32Array.of(1))).read()).toEqual([Float32Array.of(-2)]);
  });

  test("frees what it read, and disposing frees what is kept", async () => {
    const engine = await load();
    await warmUp(engine);
    const before = tvm.state.tensors;
    await engine.vaeDecoder(sample);
    const context = await engine.textEncoder(Int32Array.of(1));
    context.dispose();
    expect(tvm.state.tensors).toBe(before);
  });
});

const never = () => new Promise<void>(() => {});

describe("kernels", () => {
  const kernels = [
    { function: "vae_decoder", kernels: ["add_kernel", "decode_kernel"] },
    { function: "text_encoder", kernels: ["encode_kernel", "add_kernel"] },
    { function: "unet", kernels: ["denoise_kernel", "add_kernel"] },
  ];

  test("are compiled in the order in which a picture needs them, each once", async () => {
    await load({ kernels });
    expect(tvm.state.compiling).toEqual([["encode_kernel", "add_kernel"], ["denoise_kernel"], ["decode_kernel"]]);
  });

  test("of the last component are not waited for until it is called", async () => {
    let finish = () => {};
    tvm.state.compiled = ([kernel]) =>
      kernel === "decode_kernel" ? new Promise((resolve) => (finish = resolve)) : Promise.resolve();
    const run = vi.fn(tvm.state.run.vae_decoder);
    tvm.state.run.vae_decoder = run;
    const engine = await load({ kernels });
    (await engine.textEncoder(Int32Array.of(1))).dispose();
    const decoding = engine.vaeDecoder(sample);
    await new Promise((resolve) => setTimeout(resolve));
    expect(run).not.toHaveBeenCalled();
    finish();
    expect(await decoding).toEqual(Float32Array.of(3));
  });

  test("of a bundle that does not tell whose they are, are needed by every component", async () => {
    tvm.state.compiled = never;
    const engine = await load();
    expect(tvm.state.compiling).toEqual([Object.keys(KERNELS)]);
    const waiting = engine.textEncoder(Int32Array.of(1));
    expect(await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 10, "waits"))])).toBe("waits");
  });

  test("that nobody lists are needed by every component", async () => {
    tvm.state.compiled = ([kernel]) => (kernel === "denoise_kernel" ? never() : Promise.resolve());
    const engine = await load({ kernels: kernels.slice(0, 2) });
    const waiting = engine.textEncoder(Int32Array.of(1));
    expect(await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 10, "waits"))])).toBe("waits");
  });

  test("that do not compile fail the call that needs them, and no other", async () => {
    const error = new Error("kernel decode_kernel does not compile");
    tvm.state.compiled = ([kernel]) => (kernel === "decode_kernel" ? Promise.reject(error) : Promise.resolve());
    const engine = await load({ kernels });
    (await engine.textEncoder(Int32Array.of(1))).dispose();
    await expect(engine.vaeDecoder(sample)).rejects.toThrow(error);
  });

  test("that a picture waits for are told to its caller, who may give the picture up", async () => {
    tvm.state.compiled = never;
    const [controller, seen] = [new AbortController(), [] as number[]];
    const compile = async () =>
      device.createComputePipelineAsync({ layout: "auto", compute: {} as GPUProgrammableStage });
    const engine = await load({ kernels });
    await compile(); // nobody waits
    await engine.require([], { onProgress: ({ done }) => seen.push(done), signal: controller.signal });
    const waiting = engine.textEncoder(Int32Array.of(1));
    await new Promise((resolve) => setTimeout(resolve));
    await compile();
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ name: "AbortError" });
    expect(seen).toEqual([2]);
  });
});

test("an abort while weights are fetched ends the loading at once, and the device", async () => {
  const { destroy } = device;
  readFile = async (path) => (path === "params/00.bin" ? new Promise(() => {}) : FILES[path]);
  const controller = new AbortController();
  const loading = load({ signal: controller.signal });
  await new Promise((resolve) => setTimeout(resolve, 0));
  controller.abort();
  await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  expect(destroy).toHaveBeenCalled();
});

describe("a lost device", () => {
  const lost = { reason: "unknown", message: "gone" } as GPUDeviceLostInfo;

  test("ends a call that waits for it, and later calls", async () => {
    const engine = await load();
    tvm.state.synced = new Promise(() => {});
    const waiting = engine.vaeDecoder(sample);
    loseDevice(lost);
    await expect(waiting).rejects.toBeInstanceOf(UserError);
    await expect(engine.vaeDecoder(sample)).rejects.toThrow("GPU device: got lost: gone");
  });

  test("ends the loading", async () => {
    readFile = async (path) => (path === "params/00.bin" ? new Promise(() => {}) : FILES[path]);
    const loading = load();
    loseDevice(lost);
    await expect(loading).rejects.toThrow("GPU device: got lost: gone");
  });

  test("ends a call that waits for its kernels", async () => {
    tvm.state.compiled = never;
    const engine = await load();
    const waiting = engine.textEncoder(Int32Array.of(1));
    loseDevice(lost);
    await expect(waiting).rejects.toThrow("GPU device: got lost: gone");
  });
});

test("GPU memory that runs out in the middle ends the call with what it had, and the device", async () => {
  class OutOfMemory {
    message = "no room";
  }
  vi.stubGlobal("GPUOutOfMemoryError", OutOfMemory);
  vi.stubGlobal("GPUBufferUsage", {});
  const { destroy } = device;
  const engine = await load();
  device.createBuffer({ size: 5e6, usage: 128 });
  tvm.state.synced = new Promise(() => {});
  const waiting = engine.vaeDecoder(sample);
  reportGpuError({ error: new OutOfMemory() });
  await expect(waiting).rejects.toThrow("GPU memory: got less than 5 MB");
  expect(destroy).toHaveBeenCalled();
  vi.unstubAllGlobals();
});

test("a GPU error that nobody caught while the model loads ends the loading", async () => {
  readFile = async (path) => (path === "params/00.bin" ? new Promise(() => {}) : FILES[path]);
  const loading = load();
  await new Promise((resolve) => setTimeout(resolve));
  reportGpuError({ error: { message: "buffer too small" } });
  await expect(loading).rejects.toThrow("WebGPU: buffer too small");
});

test("a GPU error that nobody caught fails the next call, where the picture would be silently wrong", async () => {
  const engine = await load();
  reportGpuError({ error: { message: "buffer too small" } });
  await expect(engine.vaeDecoder(sample)).rejects.toThrow("WebGPU: buffer too small");
});

describe("what not every picture needs", () => {
  const later = { name: "depth.first", shape: [1], dtype: "float16", shard: 1, byte_offset: 0, bytes: 2 };
  const components = {
    ...manifest.components,
    control_embedding_2: manifest.components.control_embedding,
    controlnet_2: { ...manifest.components.controlnet, params: ["depth.first"] },
  };
  const shards = ["params/00.bin", "params/01.bin"];
  const ofTwo: Manifest = {
    ...manifest,
    components,
    controlnets: [LINES, DEPTH],
    params: { ...manifest.params, shards, records: [...records, later] },
    files: [...manifest.files, { path: "params/01.bin", bytes: 4, sha256: "" }],
  };
  const needed = ["controlnet_2", "control_embedding_2"];
  let fetched: string[];

  beforeEach(() => {
    fetched = [];
    const whole = readFile;
    readFile = async (path, options) => {
      options?.signal?.throwIfAborted();
      fetched.push(path);
      options?.onBytes?.(4);
      return path === "params/01.bin" ? Uint8Array.of(0x00, 0x40, 0, 0) : whole(path, options);
    };
  });

  const loadTwo = (kept: number) =>
    load({ manifest: ofTwo, memory: keeping({ unet: 2, controlnet_2: kept, control_embedding_2: 0 }) });

  async function draw(engine: Engine): Promise<number[]> {
    let params: number[] = [];
    tvm.state.run.controlnet = (...args) => {
      params = (args.at(-1) as InstanceType<typeof tvm.TVMArray>).items.flatMap(floats);
      return new tvm.TVMArray([gpuTensor(7), gpuTensor(8)]);
    };
    const context = await engine.textEncoder(Int32Array.of(1));
    const control = await engine.controlEmbedding(sample, DEPTH);
    const residuals = await engine.controlnet(sample, 9, context, control, [1, 1]);
    for (const value of [context, control, residuals]) value.dispose();
    return params;
  }

  test.each([1, 0])("is fetched when it is asked for, once, and drawn with (%d kept)", async (kept) => {
    const before = tvm.state.tensors;
    const engine = await loadTwo(kept);
    expect(fetched).not.toContain("params/01.bin");
    const seen: Progress[] = [];
    for (let i = 0; i < 2; i++) await engine.require(needed, { onProgress: (progress) => seen.push(progress) });
    expect(fetched.filter((path) => path === "params/01.bin")).toHaveLength(1);
    expect(seen).toEqual([{ phase: "download", done: 4, total: 4 }]);
    expect(await draw(engine)).toEqual([2]);
    engine.unload();
    expect(tvm.state.tensors).toBe(before);
  });

  test("can be given up while it is fetched, and asked for again", async () => {
    const engine = await loadTwo(1);
    const abort = new AbortController();
    abort.abort();
    await expect(engine.require(needed, { signal: abort.signal })).rejects.toThrow("aborted");
    await engine.require(needed);
    expect(await draw(engine)).toEqual([2]);
  });

  test("of a bundle that has none is refused by name", async () => {
    const engine = await loadTwo(1);
    await expect(engine.require(["vae_encoder"])).rejects.toThrow("bundle: got no vae_encoder, wanted vae_encoder;");
  });
});

describe("loading", () => {
  test("tells the bytes of library and shards against their sum", async () => {
    const seen: Progress[] = [];
    readFile = async (path, { onBytes } = {}) => {
      const bytes = path === "params/00.bin" ? shard : FILES[path];
      onBytes?.(bytes.length);
      return bytes;
    };
    await load({ onProgress: (progress) => seen.push(progress) });
    expect(seen).toEqual([
      { phase: "download", done: 8, total: 16 },
      { phase: "compile", done: 0, total: 4 }, // its kernels, which are compiled meanwhile and afterwards
      { phase: "download", done: 16, total: 16 },
    ]);
  });

  test("that fails gives the device back", async () => {
    readFile = async () => Promise.reject(new UserError("params/00.bin", "short", "long", "copy"));
    await expect(load()).rejects.toThrow("params/00.bin");
    expect(device.destroy).toHaveBeenCalled();
  });

  test("that was aborted gives the device back", async () => {
    const { destroy } = device; // load puts another function in its place, which calls it
    await expect(load({ signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
    expect(destroy).toHaveBeenCalled();
  });
});

describe("unloading", () => {
  test("frees everything, once", async () => {
    const engine = await load();
    engine.unload();
    engine.unload();
    expect(tvm.state.alive).toBe(0);
    expect(tvm.instance.dispose).toHaveBeenCalledTimes(1);
    await expect(engine.vaeDecoder(sample)).rejects.toThrow("the engine was unloaded");
  });

  test("after the device was lost leaves the rest to tvmjs, which has disposed itself", async () => {
    const engine = await load();
    loseDevice({ reason: "unknown", message: "gone" } as GPUDeviceLostInfo);
    await new Promise((resolve) => setTimeout(resolve));
    engine.unload();
    expect(tvm.instance.dispose).not.toHaveBeenCalled();
  });
});

test("launches are those that tvmjs counts and those that it does not know of; bytes are those of the device's buffers", async () => {
  const engine = await load();
  device.createBuffer({ size: 3 << 20, usage: 0 }).destroy();
  device.createBuffer({ size: 1 << 20, usage: 0 });
  expect(engine.stats()).toEqual({ dispatches: 2234, peakGpuMebibytes: 3, gpuBytes: 1 << 20 });
});
