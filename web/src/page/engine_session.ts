/** One engine for the page's life: loaded when the page opens, loaded again where it broke. */

import type {
  ControlNetEngine,
  createEngine,
  EngineInfo,
  EngineStats,
  GenerateCallbacks,
  GeneratedImage,
  GenerateRequest,
  Manifest,
  MemoryChoice,
  Progress,
} from "../worker";
import { isAbort, UserError } from "../worker";

/** Hears of loading, whenever it happens. */
export interface LoadListener {
  onLoadStart(): void;
  /** The bundle is known, and being fetched. */
  onManifest(manifest: Manifest): void;
  onProgress(progress: Progress): void;
  onLoaded(info: EngineInfo): void;
}

export class EngineSession {
  private engine: Promise<ControlNetEngine> | undefined;
  private memory: MemoryChoice = "auto";
  /** How often an engine was begun: only the last one is told of. */
  private loads = 0;
  /** The GPU's memory once was full with all weights on it. */
  private outgrown = false;

  constructor(
    private readonly create: typeof createEngine,
    private readonly bundleUrl: string,
    private readonly listener: LoadListener,
  ) {}

  /** Load the engine unless it is loaded or loading. A failure is forgotten, so that the next call tries again. */
  load(): Promise<ControlNetEngine> {
    if (this.engine !== undefined) return this.engine;
    const engine = this.start();
    this.engine = engine;
    engine.catch(() => {
      if (this.engine === engine) this.engine = undefined;
    });
    return engine;
  }

  /** Load the next engine with this use of the GPU's memory; one that has another is given up. Not while it draws. */
  useMemory(memory: MemoryChoice): void {
    if (memory === this.memory) return;
    this.memory = memory;
    this.giveUp();
  }

  /** Wait until the engine is loaded. An abort ends the waiting; the loading goes on. */
  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.load().then(resolve, reject);
    });
  }

  /** Make a picture. An engine that broke over it is given up, so that the next call loads a new one. */
  async generate(request: GenerateRequest, callbacks: GenerateCallbacks): Promise<GeneratedImage> {
    const engine = await this.load();
    try {
      return await engine.generate(request, callbacks);
    } catch (error) {
      this.outgrown ||= isMemoryFull(error);
      if (breaksEngine(error)) this.giveUp();
      throw error;
    }
  }

  /** What the GPU did since the present engine was loaded. */
  async stats(): Promise<EngineStats> {
    return (await this.load()).stats();
  }

  private giveUp(): void {
    const engine = this.engine;
    this.engine = undefined;
    void engine?.then((loaded) => loaded.unload()).catch(() => {}); // it may be past answering, or never have loaded
  }

  private async start(): Promise<ControlNetEngine> {
    const load = ++this.loads;
    this.listener.onLoadStart();
    const engine = await this.create({
      bundleUrl: this.bundleUrl,
      memory: this.memory === "auto" && this.outgrown ? "reduced" : this.memory,
      onManifest: (manifest) => load === this.loads && this.listener.onManifest(manifest),
      onProgress: (progress) => load === this.loads && this.listener.onProgress(progress),
    });
    if (load === this.loads) this.listener.onLoaded(engine.info);
    return engine;
  }
}

/** True for everything but a cancel and a user's mistake; what happens to the GPU is told as the latter. */
function breaksEngine(error: unknown): boolean {
  if (isAbort(error)) return false;
  return !(error instanceof UserError) || error.subject === "GPU device" || isMemoryFull(error);
}

/** Errors lose their class on the way from the worker, not their parts. */
function isMemoryFull(error: unknown): boolean {
  return error instanceof UserError && error.subject === "GPU memory";
}
