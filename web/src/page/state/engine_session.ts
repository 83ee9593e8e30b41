/** The page's engine: loaded when the page opens, and loaded again after a failure. */

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
  Notice,
  Progress,
} from "../../worker";
import { isAbort, UserError } from "../../worker";

/** Receives the events of every load. */
export interface LoadListener {
  onLoadStart(): void;
  /** The manifest was read; the large files are being fetched. */
  onManifest(manifest: Manifest): void;
  /** Something is not as it should be, and the engine loads nevertheless. */
  onNotice(notice: Notice | string): void;
  onProgress(progress: Progress): void;
  onLoaded(info: EngineInfo): void;
  onFailed(error: unknown): void;
}

export class EngineSession {
  private engine: Promise<ControlNetEngine> | undefined;
  private memory: MemoryChoice = "auto";
  /** The number of loads so far. The listener hears only of the last one. */
  private loads = 0;
  /** GPU memory was full once, with all weights in it. */
  private outgrown = false;

  constructor(
    private readonly create: typeof createEngine,
    private addresses: readonly string[],
    private readonly listener: LoadListener,
  ) {}

  /** Load the engine unless it is loaded or loading. After a failure, the next call tries again. */
  load(): Promise<ControlNetEngine> {
    if (this.engine !== undefined) return this.engine;
    const engine = this.start();
    const load = this.loads;
    this.engine = engine;
    engine.catch((error) => {
      if (this.engine === engine) this.engine = undefined;
      if (load === this.loads) this.listener.onFailed(error);
    });
    return engine;
  }

  /** Choose how the next engine uses GPU memory; an engine with another choice is unloaded. Not while it draws. */
  useMemory(memory: MemoryChoice): void {
    if (memory === this.memory) return;
    this.memory = memory;
    this.giveUp();
  }

  /** Choose the bundle of the next engine, by its addresses; an engine of another one is unloaded. Not while it draws. */
  useBundle(addresses: readonly string[]): void {
    if (addresses.join() === this.addresses.join()) return;
    this.addresses = addresses;
    this.outgrown = false;
    this.giveUp();
  }

  /** Wait until the engine is loaded. An abort ends the wait but not the loading. */
  async ready(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.load().then(resolve, reject);
    });
  }

  /** Draw a picture. If the engine breaks, it is unloaded and the next call loads a new one. */
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

  /** The GPU's work since the present engine was loaded. */
  async stats(): Promise<EngineStats> {
    return (await this.load()).stats();
  }

  private giveUp(): void {
    const engine = this.engine;
    this.engine = undefined;
    void engine?.then((loaded) => loaded.unload()).catch(() => {}); // a broken engine may not answer
  }

  private async start(): Promise<ControlNetEngine> {
    const load = ++this.loads;
    this.listener.onLoadStart();
    const [first, ...mirrors] = this.addresses;
    const engine = await mirrors.reduce(
      (attempt, mirror) =>
        attempt.catch((error) => {
          if (!isMissing(error) || load !== this.loads) throw error;
          return this.createFrom(mirror, load);
        }),
      this.createFrom(first, load),
    );
    if (load === this.loads) this.listener.onLoaded(engine.info);
    return engine;
  }

  private createFrom(bundleUrl: string, load: number): Promise<ControlNetEngine> {
    return this.create({
      bundleUrl,
      memory: this.memory === "auto" && this.outgrown ? "reduced" : this.memory,
      onManifest: (manifest) => load === this.loads && this.listener.onManifest(manifest),
      onNotice: (text, notice) => load === this.loads && this.listener.onNotice(notice ?? text),
      onProgress: (progress) => load === this.loads && this.listener.onProgress(progress),
    });
  }
}

/** Whether another host may have what this one has not. */
function isMissing(error: unknown): boolean {
  return error instanceof UserError && ["no-connection", "bad-bundle", "bundle-changed"].includes(error.code);
}

/** Return false for a cancel and for a user's mistake. Failures of the GPU arrive as UserError and count as broken. */
function breaksEngine(error: unknown): boolean {
  if (isAbort(error)) return false;
  return !(error instanceof UserError) || error.subject === "GPU device" || isMemoryFull(error);
}

/** Decide by the subject, because an error from the worker keeps its parts but not its subclass. */
function isMemoryFull(error: unknown): boolean {
  return error instanceof UserError && error.subject === "GPU memory";
}
