/** One engine for the page's life: loaded when the page opens, loaded again where it broke. */

import type {
  ControlNetEngine,
  createEngine,
  EngineInfo,
  EngineStats,
  GenerateCallbacks,
  GeneratedImage,
  GenerateRequest,
  Progress,
} from "../worker";
import { isAbort, UserError } from "../worker";

/** Hears of loading, whenever it happens. */
export interface LoadListener {
  onLoadStart(): void;
  onProgress(progress: Progress): void;
  onLoaded(info: EngineInfo): void;
}

export class EngineSession {
  private engine: Promise<ControlNetEngine> | undefined;

  constructor(
    private readonly create: typeof createEngine,
    private readonly bundleUrl: string,
    private readonly listener: LoadListener,
  ) {}

  /** Load the engine unless it is loaded or loading. A failure is forgotten, so that the next call tries again. */
  load(): Promise<ControlNetEngine> {
    this.engine ??= this.start().catch((error) => {
      this.engine = undefined;
      throw error;
    });
    return this.engine;
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
      if (breaksEngine(error)) {
        this.engine = undefined;
        void engine.unload().catch(() => {}); // it may be past answering
      }
      throw error;
    }
  }

  /** What the GPU did since the present engine was loaded. */
  async stats(): Promise<EngineStats> {
    return (await this.load()).stats();
  }

  private async start(): Promise<ControlNetEngine> {
    this.listener.onLoadStart();
    const engine = await this.create({
      bundleUrl: this.bundleUrl,
      onProgress: (progress) => this.listener.onProgress(progress),
    });
    this.listener.onLoaded(engine.info);
    return engine;
  }
}

/** True for everything but a cancel and a user's mistake; a lost device is told as the latter. */
function breaksEngine(error: unknown): boolean {
  if (isAbort(error)) return false;
  return !(error instanceof UserError) || error.subject === "GPU device";
}
