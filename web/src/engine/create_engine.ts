/** Load a bundle, generate pictures, and unload it. */

import { type BatchRequest, oneRequestEach } from "./batch.ts";
import { openDevice } from "./device.ts";
import { Engine } from "./engine.ts";
import {
  type BatchCallbacks,
  type ControlNetEngine,
  checkBatch,
  checkCallbacks,
  checkOptions,
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type GenerateCallbacks,
} from "./interface.ts";
import { type Bundle, openBundle } from "./load.ts";
import { checkCanDraw } from "./manifest.ts";
import { chooseMemory, type MemoryChoice, MemoryFullError } from "./memory.ts";
import { ControlNetPipeline, type GeneratedImage, type Model } from "./pipeline.ts";
import type { GenerateRequest } from "./request.ts";
import { descriptionsFromJson } from "./samplers/description.ts";
import { PromptTokenizer } from "./tokenizer.ts";

/**
 * Load a bundle in this thread. A page uses the function of the same name in `../worker`, which keeps the page responsive.
 *
 * Rejects with UserError if the browser or GPU lacks something, or if a file of the bundle is missing or altered.
 * Rejects with AbortError if the signal aborts.
 */
export async function createEngine(options: EngineOptions): Promise<ControlNetEngine> {
  checkOptions(options);
  const bundle = await openBundle(options.bundleUrl, options.signal);
  checkCanDraw(bundle.manifest, bundle.url);
  options.onManifest?.(bundle.manifest);
  const { engine, opened, memory } = await loadEngine(bundle, options);
  try {
    const model = await loadModel(bundle, engine, options.signal);
    await bundle.keep();
    const info: EngineInfo = {
      manifest: bundle.manifest,
      bundleSha256: bundle.sha256,
      device: opened.description,
      dtype: opened.library.dtype,
      memory,
      memoryPlan: bundle.manifest.memory[opened.library.file],
      samplers: [...model.samplers.samplers.keys()],
    };
    return new PipelineEngine(info, new ControlNetPipeline(model), engine);
  } catch (error) {
    engine.unload();
    throw error;
  }
}

/** Load the engine. If the GPU's memory is full and the caller chose no memory mode, try again with "reduced". */
async function loadEngine(bundle: Bundle, options: EngineOptions) {
  const { libraries, memory: plans } = bundle.manifest;
  const load = async (choice: MemoryChoice) => {
    const opened = await openDevice(libraries, navigator.gpu); // before anything large is fetched
    const memory = chooseMemory(choice, plans[opened.library.file], opened.maxBufferBytes);
    return { engine: await Engine.load(bundle, opened, memory, options), opened, memory };
  };
  const choice = options.memory ?? "auto";
  try {
    return await load(choice);
  } catch (error) {
    if (choice !== "auto" || !(error instanceof MemoryFullError)) throw error;
    return load("reduced");
  }
}

async function loadModel(bundle: Bundle, components: Engine, signal?: AbortSignal): Promise<Model> {
  const { manifest, sha256: bundleSha256 } = bundle;
  const { tokenizer, samplers } = manifest;
  const [tokenizerJson, samplersJson] = await Promise.all([
    bundle.readFile(tokenizer.file, { signal }),
    bundle.readFile(samplers.file, { signal }),
  ]);
  return {
    manifest,
    bundleSha256,
    tokenizer: new PromptTokenizer(tokenizerJson, tokenizer),
    samplers: descriptionsFromJson(samplersJson, samplers.file),
    components,
  };
}

class PipelineEngine implements ControlNetEngine {
  /** Settles when the latest call has ended. */
  private last: Promise<unknown> = Promise.resolve();
  private readonly unloading = new AbortController();

  constructor(
    readonly info: EngineInfo,
    private readonly pipeline: ControlNetPipeline,
    private readonly engine: Engine,
  ) {}

  generate(request: GenerateRequest, callbacks: GenerateCallbacks = {}): Promise<GeneratedImage> {
    return this.afterTheLast(() => this.run(request, callbacks));
  }

  generateAll(request: BatchRequest, callbacks: BatchCallbacks = {}): Promise<GeneratedImage[]> {
    return this.afterTheLast(async () => {
      checkBatch(request, callbacks);
      const { onImage, ...others } = callbacks;
      const requests = oneRequestEach(request);
      for (const one of requests) this.pipeline.resolve(one);
      const images: GeneratedImage[] = [];
      for (const one of requests) {
        images.push(await this.run(one, others));
        onImage?.(images[images.length - 1]);
      }
      return images;
    });
  }

  async stats(): Promise<EngineStats> {
    return this.engine.stats();
  }

  async unload(): Promise<void> {
    this.unloading.abort();
    await this.last;
    this.engine.unload();
  }

  private afterTheLast<T>(action: () => Promise<T>): Promise<T> {
    const call = this.last.then(action);
    this.last = call.catch(() => {});
    return call;
  }

  private async run(request: GenerateRequest, callbacks: GenerateCallbacks): Promise<GeneratedImage> {
    checkCallbacks(callbacks);
    const { onStep, onNotice, onProgress, decodesPreviews, signal } = callbacks;
    const checkAborted = () => {
      signal?.throwIfAborted();
      this.unloading.signal.throwIfAborted();
    };
    checkAborted();
    const signals = [this.unloading.signal, ...(signal === undefined ? [] : [signal])];
    const reports = { onNotice, onProgress, decodesPreviews, signal: AbortSignal.any(signals) };
    const steps = this.pipeline.generate(request, reports);
    try {
      for (;;) {
        const { done, value } = await steps.next();
        if (done) return value;
        onStep?.(value);
        checkAborted();
      }
    } finally {
      await steps.return(undefined as never); // frees the tensors of an aborted run
    }
  }
}
