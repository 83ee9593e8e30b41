/** Load a bundle, generate pictures, and unload it. */

import { type BatchRequest, oneRequestEach } from "./batch.ts";
import { chooseDevice } from "./choose_device.ts";
import { filesToDraw } from "./detect.ts";
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
import { Queue } from "./queue.ts";
import type { GenerateRequest } from "./request.ts";
import { descriptionsFromJson } from "./samplers/description.ts";
import { noticeOfRoom, persistStorage } from "./storage.ts";
import { PromptTokenizer } from "./tokenizer.ts";

/**
 * Load a bundle in this thread. A page uses the function of the same name in `../worker`, which keeps the page responsive.
 *
 * Rejects with UserError if the browser or GPU lacks something, or if a file of the bundle is missing or altered.
 * Rejects with AbortError if the signal aborts.
 */
export async function createEngine(options: EngineOptions): Promise<ControlNetEngine> {
  checkOptions(options);
  const persists = options.persist ? persistStorage() : undefined;
  const bundle = await openBundle(options.bundleUrl, options.signal);
  checkCanDraw(bundle.manifest, bundle.url);
  options.onManifest?.(bundle.manifest);
  await persists; // it may enlarge the room
  const notice = await noticeOfRoom(await bytesToKeep(bundle));
  if (notice !== undefined) options.onNotice?.(notice);
  const { engine, chosen, memory } = await loadEngine(bundle, options);
  try {
    const model = await loadModel(bundle, engine, options.signal);
    await bundle.keep();
    const info: EngineInfo = {
      manifest: bundle.manifest,
      bundleSha256: bundle.sha256,
      device: chosen.opened.description + threadsText(engine.threads),
      runsOn: chosen.runsOn,
      reason: chosen.reason,
      threads: engine.threads,
      dtype: chosen.opened.library.dtype,
      memory,
      memoryPlan: bundle.manifest.memory[chosen.opened.library.file],
      samplers: [...model.samplers.samplers.keys()],
    };
    return new PipelineEngine(info, new ControlNetPipeline(model), engine);
  } catch (error) {
    engine.unload();
    throw error;
  }
}

function threadsText(threads: number): string {
  return threads ? ` and ${threads} ${threads === 1 ? "thread" : "threads"}` : "";
}

/** Bytes that a first visit adds to the cache. */
async function bytesToKeep(bundle: Bundle): Promise<number> {
  const kept = await bundle.kept();
  const { libraries, files } = bundle.manifest;
  const wanted = new Set(filesToDraw(bundle.manifest, libraries[0].file));
  return files.reduce((sum, { path, bytes }) => sum + (wanted.has(path) && !kept.has(path) ? bytes : 0), 0);
}

/** Load the engine. If the GPU's memory is full and the caller chose no memory mode, try again with "reduced". */
async function loadEngine(bundle: Bundle, options: EngineOptions) {
  const { manifest } = bundle;
  const load = async (choice: MemoryChoice) => {
    const chosen = await chooseDevice(manifest, options.device ?? "auto", navigator.gpu); // before anything large is fetched
    const { opened } = chosen;
    const memory = chooseMemory(choice, manifest.memory[opened.library.file], opened.maxBufferBytes);
    return { engine: await Engine.load(bundle, opened, memory, options), chosen, memory };
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
  private readonly queue = new Queue();
  private readonly unloading = new AbortController();

  constructor(
    readonly info: EngineInfo,
    private readonly pipeline: ControlNetPipeline,
    private readonly engine: Engine,
  ) {}

  async generate(request: GenerateRequest, callbacks: GenerateCallbacks = {}): Promise<GeneratedImage> {
    checkCallbacks(callbacks);
    return this.inTurn(callbacks, () => this.run(request, callbacks));
  }

  async generateAll(request: BatchRequest, callbacks: BatchCallbacks = {}): Promise<GeneratedImage[]> {
    checkBatch(request, callbacks);
    return this.inTurn(callbacks, async () => {
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
    return { ...this.engine.stats(), waiting: this.queue.waiting };
  }

  async unload(): Promise<void> {
    this.unloading.abort();
    await this.queue.idle();
    this.engine.unload();
  }

  private inTurn<T>({ onQueue, signal }: GenerateCallbacks, action: () => Promise<T>): Promise<T> {
    return this.queue.run(action, { onQueue, signal: this.endedBy(signal) });
  }

  /** Aborts when the caller's signal does, and when the engine is unloaded. */
  private endedBy(signal: AbortSignal | undefined): AbortSignal {
    return AbortSignal.any([this.unloading.signal, ...(signal === undefined ? [] : [signal])]);
  }

  private async run(request: GenerateRequest, callbacks: GenerateCallbacks): Promise<GeneratedImage> {
    const { onStep, onNotice, onProgress, decodesPreviews } = callbacks;
    const signal = this.endedBy(callbacks.signal);
    signal.throwIfAborted();
    const reports = { onNotice, onProgress, decodesPreviews, signal };
    const steps = this.pipeline.generate(request, reports);
    try {
      for (;;) {
        const { done, value } = await steps.next();
        if (done) return value;
        onStep?.(value);
        signal.throwIfAborted();
      }
    } finally {
      await steps.return(undefined as never); // frees the tensors of an aborted run
    }
  }
}
