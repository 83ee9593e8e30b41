/** Load a bundle, generate pictures, and unload it. */

import { type BatchRequest, oneRequestEach } from "./batch.ts";
import { chooseDevice } from "./choose_device.ts";
import { MAX_SEED } from "./constants.ts";
import { filesToDraw } from "./detect.ts";
import { Engine } from "./engine.ts";
import { abortable, codeOf } from "./errors.ts";
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
import { chooseMemory, noticeOfMemory } from "./memory.ts";
import { checkCanDraw } from "./model_traits.ts";
import { noticeOf } from "./notices.ts";
import { isOfOneColour } from "./picture.ts";
import { ControlNetPipeline, type GeneratedImage, type Model } from "./pipeline.ts";
import type { LoadOptions } from "./progress.ts";
import { Queue } from "./queue.ts";
import { type GenerateRequest, randomInteger } from "./request.ts";
import { descriptionsFromJson } from "./samplers/description.ts";
import { noticeOfRoom, persistStorage } from "./storage.ts";
import { type Loaded, type LoadPlan, SurvivingEngine } from "./surviving_engine.ts";
import { PromptTokenizer } from "./tokenizer.ts";

/**
 * Load a bundle in this thread. A page uses the function of the same name in `../worker`, which keeps the page responsive.
 *
 * Rejects with UserError if the browser or GPU lacks something, or if a file of the bundle is missing or altered.
 * Rejects with AbortError if the signal aborts.
 */
export async function createEngine(options: EngineOptions): Promise<ControlNetEngine> {
  checkOptions(options);
  return abortable(options.signal, () => loadPipeline(options));
}

async function loadPipeline(options: EngineOptions): Promise<ControlNetEngine> {
  const persists = options.persist ? persistStorage() : undefined;
  const bundle = await openBundle(options.bundleUrl, options.signal);
  checkCanDraw(bundle.manifest, bundle.url);
  options.onManifest?.(bundle.manifest);
  await persists; // it may enlarge the room
  const notice = await noticeOfRoom(await bytesToKeep(bundle));
  if (notice !== undefined) options.onNotice?.(notice.text, notice);
  const engine = await loadEngine(bundle, options);
  try {
    const model = await loadModel(bundle, engine, options.signal);
    await bundle.keep();
    return new PipelineEngine(bundle, model, engine);
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

/** Load the engine. If the GPU's memory is full and the caller chose no memory mode, this tries again with "reduced". */
async function loadEngine(bundle: Bundle, options: EngineOptions): Promise<SurvivingEngine> {
  const { manifest } = bundle;
  const { onNotice, onProgress, signal } = options;
  let isTold = false;
  const loadOnce = async ({ memory: choice, dtype }: LoadPlan, loading: LoadOptions) => {
    const libraries = manifest.libraries.filter((library) => dtype === undefined || library.dtype === dtype);
    // Before anything large is fetched.
    const chosen = await chooseDevice({ ...manifest, libraries }, options.device ?? "auto", navigator.gpu);
    const { opened } = chosen;
    const plan = manifest.memory[opened.library.file];
    const memory = chooseMemory(choice, plan, opened.maxBufferBytes);
    const doubt = isTold ? undefined : noticeOfMemory(plan, opened.maxBufferBytes);
    if (doubt !== undefined) onNotice?.(doubt.text, doubt);
    isTold = true; // an engine that replaces a lost one has been downloaded
    return { engine: await Engine.load(bundle, opened, memory, loading), chosen, memory };
  };
  return SurvivingEngine.load(loadOnce, options.memory ?? "auto", { onNotice, onProgress, signal });
}

async function loadModel(bundle: Bundle, components: SurvivingEngine, signal?: AbortSignal): Promise<Model> {
  const { manifest, sha256: bundleSha256 } = bundle;
  const { tokenizer, more_tokenizers, samplers } = manifest;
  const specs = [tokenizer, ...more_tokenizers];
  const [samplersJson, ...tokenizerJsons] = await Promise.all([
    bundle.readFile(samplers.file, { signal }),
    ...specs.map(({ file }) => bundle.readFile(file, { signal })),
  ]);
  return {
    manifest,
    bundleSha256,
    tokenizers: specs.map((spec, i) => new PromptTokenizer(tokenizerJsons[i], spec)),
    samplers: descriptionsFromJson(samplersJson, samplers.file),
    components,
  };
}

class PipelineEngine implements ControlNetEngine {
  private readonly queue = new Queue();
  private readonly unloading = new AbortController();

  private readonly pipeline: ControlNetPipeline;
  /** What `info` was made of, and is still true of. */
  private described: { readonly loaded: Loaded; readonly info: EngineInfo } | undefined;

  constructor(
    private readonly bundle: Bundle,
    private readonly model: Model,
    private readonly engine: SurvivingEngine,
  ) {
    this.pipeline = new ControlNetPipeline(model);
  }

  get info(): EngineInfo {
    const { loaded } = this.engine;
    if (this.described?.loaded !== loaded) this.described = { loaded, info: this.describe(loaded) };
    return this.described.info;
  }

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

  private async inTurn<T>({ onQueue, signal }: GenerateCallbacks, action: () => Promise<T>): Promise<T> {
    if (this.unloading.signal.aborted) throw new Error("the engine was unloaded");
    return abortable(signal, () => this.queue.run(action, { onQueue, signal: this.endedBy(signal) }));
  }

  /** Aborts when the caller's signal does, and when the engine is unloaded. */
  private endedBy(signal: AbortSignal | undefined): AbortSignal {
    return AbortSignal.any([this.unloading.signal, ...(signal === undefined ? [] : [signal])]);
  }

  private describe({ chosen, engine, memory }: Loaded): EngineInfo {
    const { manifest, sha256: bundleSha256 } = this.bundle;
    const { opened, runsOn, reason, reasonCode } = chosen;
    return {
      manifest,
      bundleSha256,
      device: opened.description + threadsText(engine.threads),
      runsOn,
      reason,
      reasonCode,
      threads: engine.threads,
      dtype: opened.library.dtype,
      memory,
      memoryPlan: manifest.memory[opened.library.file],
      samplers: [...this.model.samplers.samplers.keys()],
    };
  }

  /** Draw a picture. If float16 arithmetic spoils it, and there is a float32 library, that draws it again, and what follows. */
  private async run(request: GenerateRequest, callbacks: GenerateCallbacks): Promise<GeneratedImage> {
    const { libraries } = this.bundle.manifest;
    const { library } = this.engine.loaded.chosen.opened;
    const hasOther = libraries.some(({ device, dtype }) => device === library.device && dtype === "float32");
    if (library.dtype !== "float16" || !hasOther) return this.draw(request, callbacks);
    const seeded = { ...request, seed: request.seed ?? randomInteger(MAX_SEED) };
    let spoilt: "one-colour" | "not-finite";
    try {
      const image = await this.draw(seeded, callbacks);
      if (!isOfOneColour(image)) return image;
      spoilt = "one-colour";
    } catch (error) {
      if (codeOf(error) !== "not-finite") throw error;
      spoilt = "not-finite";
    }
    const notice = noticeOf("drawn-again", { spoilt });
    callbacks.onNotice?.(notice.text, notice);
    await this.engine.useDtype("float32");
    return this.draw(seeded, callbacks);
  }

  private async draw(request: GenerateRequest, callbacks: GenerateCallbacks): Promise<GeneratedImage> {
    const { onStep, onNotice, onProgress, decodesPreviews } = callbacks;
    const signal = this.endedBy(callbacks.signal);
    signal.throwIfAborted();
    const reports = { onNotice, onProgress, decodesPreviews, signal };
    this.engine.listener = { onNotice, onProgress, signal };
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
