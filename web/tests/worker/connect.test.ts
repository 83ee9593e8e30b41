import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type {
  ControlNetEngine,
  createEngine,
  EngineInfo,
  EngineOptions,
  GeneratedImage,
  GenerateRequest,
  Image,
  Notice,
  Progress,
  Step,
} from "../../src/engine";
import { UserError } from "../../src/engine/errors";
import { noticeOf } from "../../src/engine/notices";
import { Connection, connectEngine } from "../../src/worker/connect";
import type { Call, Port, Reply } from "../../src/worker/protocol";
import { serveEngine } from "../../src/worker/serve";
import { makeManifest } from "../engine/sample_bundle";

const pixel = (value: number): Image => ({ width: 1, height: 1, data: Uint8ClampedArray.of(value, 0, 0, 255) });
const request: GenerateRequest = { prompt: "gold", controlImage: pixel(9) };
const info = { bundleSha256: "abc" } as EngineInfo;

const noticed = noticeOf("prompt-cut", { subject: "prompt", tokens: 77, cutText: "gold" });

/** An engine that makes pictures in two steps and stops between them if the signal says so. "slow" waits for the signal. */
const fakeEngine: ControlNetEngine = {
  info,
  async generate(
    { prompt, controlImage, seed },
    { onStep, onNotice, onProgress, onQueue, decodesPreviews, signal } = {},
  ) {
    if (prompt === "bad") throw new UserError("prompt", "bad", "good", "be good");
    onNotice?.(noticed.text, noticed);
    onProgress?.({ phase: "download", done: 1, total: 2 });
    for (const ahead of [1, 0]) onQueue?.(ahead);
    for (const index of [0, 1]) {
      const x = Float32Array.of(index);
      const decoded = decodesPreviews ? { decodedPreview: pixel(100 + index) } : {};
      onStep?.({ index, count: 2, timestep: 9, x, x0: x, preview: () => pixel(index), ...decoded });
      if (prompt === "slow") await new Promise((resolve) => signal?.addEventListener("abort", resolve));
      signal?.throwIfAborted();
    }
    const settings = { prompt, seed: seed ?? 1 } as never;
    return {
      ...pixel((controlImage as Image).data[0] + 1),
      settings,
      metadata: { prompt },
      latents: Float32Array.of(1),
    };
  },
  async generateAll({ prompt, ...others }, { onImage, ...callbacks } = {}) {
    const images = [];
    for (const one of prompt as string[]) {
      images.push(await this.generate({ ...others, prompt: one } as GenerateRequest, callbacks));
      onImage?.(images[images.length - 1]);
    }
    return images;
  },
  stats: async () => ({ waiting: 0, dispatches: 3, peakGpuMebibytes: 1, gpuBytes: 2 }),
  unload: vi.fn(async () => {}),
};

let channel: MessageChannel;
let connection: Connection;
let release: () => void;

beforeEach(() => {
  vi.stubGlobal("location", { href: "https://site.example/demo/" });
  channel = new MessageChannel();
  connection = new Connection(channel.port1 as unknown as Port<Reply, Call>);
  release = vi.fn();
});

afterEach(() => {
  channel.port1.close();
  vi.unstubAllGlobals();
});

function connect(create: typeof createEngine = async () => fakeEngine, options: Partial<EngineOptions> = {}) {
  serveEngine(channel.port2 as unknown as Port<Call, Reply>, create);
  return connectEngine(connection, { bundleUrl: "./bundle/", ...options }, release);
}

describe("creating", () => {
  test("gives the engine's info; the address is the page's", async () => {
    const create = vi.fn<typeof createEngine>(async () => fakeEngine);
    expect((await connect(create)).info).toEqual(info);
    expect(create.mock.calls[0][0].bundleUrl).toBe("https://site.example/demo/bundle/");
  });

  test("passes the choice of memory on", async () => {
    const create = vi.fn<typeof createEngine>(async () => fakeEngine);
    await connect(create, { memory: "reduced" });
    expect(create.mock.calls[0][0].memory).toBe("reduced");
  });

  test("tells what the bundle is and then its progress", async () => {
    const progress = { phase: "download", done: 1, total: 2 } as const;
    const manifest = makeManifest();
    const seen: unknown[] = [];
    const create: typeof createEngine = async ({ onManifest, onProgress }) => {
      onManifest?.(manifest);
      onProgress?.(progress);
      return fakeEngine;
    };
    const see = (report: unknown) => seen.push(report);
    await connect(create, { onManifest: see, onProgress: see });
    expect(seen).toEqual([manifest, progress]);
  });

  test("that fails keeps the error's four parts and releases the worker", async () => {
    const failed = connect(async () => {
      throw new UserError("WebGPU", "none", "some", "get it");
    });
    await expect(failed).rejects.toBeInstanceOf(UserError);
    await expect(failed).rejects.toMatchObject({ subject: "WebGPU", got: "none", wanted: "some", remedy: "get it" });
    expect(release).toHaveBeenCalledTimes(1);
  });

  test("can be aborted", async () => {
    const controller = new AbortController();
    const created = connect(
      ({ signal }) =>
        new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason))) as never,
      { signal: controller.signal },
    );
    controller.abort();
    await expect(created).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("generating", () => {
  test("passes the request there and the picture back", async () => {
    const image = await (await connect()).generate({ ...request, seed: 0 });
    expect(image).toEqual({
      ...pixel(10),
      settings: { prompt: "gold", seed: 0 },
      metadata: { prompt: "gold" },
      latents: Float32Array.of(1),
    });
  });

  test("of several pictures hands over each when it is finished", async () => {
    const finished: string[] = [];
    const engine = await connect();
    const onStep = () => finished.push("step");
    const onImage = ({ metadata }: GeneratedImage) => finished.push(metadata.prompt);
    const images = await engine.generateAll({ ...request, prompt: ["gold", "navy"] }, { onStep, onImage });
    expect(finished).toEqual(["step", "step", "gold", "step", "step", "navy"]);
    expect(images.map(({ data, metadata }) => [data[0], metadata.prompt])).toEqual([
      [10, "gold"],
      [10, "navy"],
    ]);
  });

  test("of several pictures ends with the first error, and keeps those before it", async () => {
    const finished: string[] = [];
    const onImage = ({ metadata }: GeneratedImage) => finished.push(metadata.prompt);
    const run = (await connect()).generateAll({ ...request, prompt: ["gold", "bad"] }, { onImage });
    await expect(run).rejects.toThrow("prompt: got bad, wanted good");
    expect(finished).toEqual(["gold"]);
  });

  test("tells the progress of a download", async () => {
    const seen: Progress[] = [];
    const engine = await connect();
    await engine.generate(request, { onProgress: (progress) => seen.push(progress) });
    expect(seen).toEqual([{ phase: "download", done: 1, total: 2 }]);
  });

  test("leaves the caller's control image usable", async () => {
    await (await connect()).generate(request);
    expect((request.controlImage as Image).data.length).toBe(4);
  });

  test.each([true, false])("tells steps with their decoded previews if that is wanted: %s", async (decodesPreviews) => {
    const seen: (Image | undefined)[] = [];
    const engine = await connect();
    const callbacks = { decodesPreviews, onStep: ({ decodedPreview }: Step) => seen.push(decodedPreview) };
    await engine.generate(request, callbacks);
    await engine.generateAll({ ...request, prompt: ["gold"] }, callbacks);
    const each = decodesPreviews ? [pixel(100), pixel(101)] : [undefined, undefined];
    expect(seen).toEqual([...each, ...each]);
  });

  test("tells steps with their previews, and notices", async () => {
    const steps: Step[] = [];
    const notices: unknown[] = [];
    const engine = await connect();
    const onNotice = (text: string, notice?: Notice) => notices.push([text, notice]);
    await engine.generate(request, { onStep: (step) => steps.push(step), onNotice });
    expect(steps.map(({ index, x0 }) => [index, ...x0])).toEqual([
      [0, 0],
      [1, 1],
    ]);
    expect(steps[1].preview()).toEqual(pixel(1));
    expect(notices).toEqual([[noticed.text, noticed]]);
  });

  test("takes the proxies that frameworks wrap objects in", async () => {
    const proxy = <T extends object>(value: T): T =>
      new Proxy(value, { get: (own, key) => wrapped(Reflect.get(own, key)) });
    const wrapped = (value: unknown) =>
      typeof value === "object" && value !== null && !ArrayBuffer.isView(value) ? proxy(value) : value;
    const several = { ...request, controlnetConditioningScale: [1, 0.5], controlnets: ["canny"] };
    expect(() => structuredClone(proxy(request))).toThrow("could not be cloned");
    const engine = await connect();
    expect((await engine.generate(proxy(request))).data[0]).toBe(10);
    await engine.generate(proxy(several));
    expect((await engine.generateAll(proxy({ ...request, prompt: ["gold"] }))).length).toBe(1);
  });

  test("ends with what a callback throws, and the next one works", async () => {
    const engine = await connect();
    const onStep = () => {
      throw new RangeError("enough");
    };
    await expect(engine.generate({ ...request, prompt: "slow" }, { onStep })).rejects.toThrow(RangeError);
    expect((await engine.generate(request)).width).toBe(1);
  });

  test("that is aborted ends with AbortError, and the next one works", async () => {
    const engine = await connect();
    const controller = new AbortController();
    const steps: number[] = [];
    const slow = { ...request, prompt: "slow" };
    const run = engine.generate(slow, {
      signal: controller.signal,
      onStep: ({ index }) => {
        steps.push(index);
        controller.abort();
      },
    });
    await expect(run).rejects.toMatchObject({ name: "AbortError" });
    expect(steps).toEqual([0]);
    expect((await engine.generate(request)).width).toBe(1);
  });

  test("with a signal that is aborted already does not start", async () => {
    const engine = await connect();
    for (const reason of [undefined, "the visitor has left", new DOMException("timed out", "TimeoutError")]) {
      const signal = AbortSignal.abort(reason);
      await expect(engine.generate(request, { signal })).rejects.toMatchObject({ name: "AbortError" });
    }
  });

  test("that fails keeps the error's parts, and the next one works", async () => {
    const engine = await connect();
    await expect(engine.generate({ ...request, prompt: "bad" })).rejects.toMatchObject({ remedy: "be good" });
    expect((await engine.generate(request)).width).toBe(1);
  });

  test("before an engine was created fails", async () => {
    serveEngine(channel.port2 as unknown as Port<Call, Reply>);
    await expect(connection.call({ kind: "generate", request })).rejects.toThrow("no engine was created");
  });
});

test("a change of the engine's info, which a call caused, arrives before the call's result", async () => {
  const engine = await connect();
  const before = engine.info;
  const info = { ...fakeEngine.info, dtype: "float32" };
  Object.assign(fakeEngine, { info });
  const { dtype } = await engine.generate(request).then(() => engine.info);
  Object.assign(fakeEngine, { info: before });
  expect([before.dtype === "float32", dtype]).toEqual([false, "float32"]);
});

test("a call hears its place in the queue", async () => {
  const places: number[] = [];
  await (await connect()).generate(request, { onQueue: (ahead) => places.push(ahead) });
  expect(places).toEqual([1, 0]);
});

test("stats pass through", async () => {
  expect(await (await connect()).stats()).toEqual({ waiting: 0, dispatches: 3, peakGpuMebibytes: 1, gpuBytes: 2 });
});

test("unloading unloads the engine there and releases the worker", async () => {
  await (await connect()).unload();
  expect(fakeEngine.unload).toHaveBeenCalled();
  expect(release).toHaveBeenCalledTimes(1);
});

test("an engine that is unloaded twice is unloaded once, and later calls say so", async () => {
  const engine = await connect();
  vi.mocked(fakeEngine.unload).mockClear();
  vi.mocked(release).mockImplementationOnce(() => connection.close(new Error("the engine was unloaded")));
  await Promise.all([engine.unload(), engine.unload()]);
  await engine.unload();
  expect(fakeEngine.unload).toHaveBeenCalledTimes(1);
  expect(release).toHaveBeenCalledTimes(1);
  await expect(engine.generate(request)).rejects.toThrow("the engine was unloaded");
});

test("an engine whose worker has died can be unloaded: the worker is released", async () => {
  const engine = await connect();
  connection.close(new Error("the worker failed"));
  await engine.unload();
  expect(release).toHaveBeenCalledTimes(1);
});

test("a worker that dies ends running calls and later ones", async () => {
  const engine = await connect();
  const run = engine.generate(request);
  connection.close(new Error("the worker failed"));
  await expect(run).rejects.toThrow("the worker failed");
  await expect(engine.stats()).rejects.toThrow("the worker failed");
});

test("a canvas, which cannot be sent to a worker, is refused with a word on what can", async () => {
  const engine = await connect();
  const canvas = { width: 1, height: 1, getContext: () => null };
  for (const controlImage of [canvas, [pixel(9), canvas]]) {
    await expect(engine.generate({ ...request, controlImage: controlImage as never })).rejects.toThrow(
      "control image: got Object without pixels, wanted pixels as in ImageData; pass context.getImageData(",
    );
  }
});

test("a misspelt key is named before anything is sent, even where its value could not be", async () => {
  const engine = await connect();
  const canvas = { getContext: () => null };
  const typo = { prompt: "gold", control_image: canvas } as unknown as GenerateRequest;
  await expect(engine.generate(typo)).rejects.toThrow("key of the request: got 'control_image'");
  await expect(engine.generate(request, { onsteps: canvas } as never)).rejects.toThrow(
    "key of the callbacks: got 'onsteps'",
  );
  await expect(connect(undefined, { memroy: "reduced" } as never)).rejects.toThrow("key of the options: got 'memroy'");
  expect(release).toHaveBeenCalledTimes(1);
});

test("pictures that are null are none", async () => {
  const engine = await connect();
  const without = { ...request, image: null, maskImage: null } as unknown as GenerateRequest;
  expect((await engine.generate(without)).width).toBe(1);
});

test("an engine without a bundle's address is refused", async () => {
  await expect(connect(undefined, { bundleUrl: undefined as never })).rejects.toThrow(
    "bundleUrl: got undefined, wanted",
  );
  expect(release).toHaveBeenCalled();
});
