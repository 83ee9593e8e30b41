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

/** Receives the events of a load, until it is given up. */
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

/** An engine that is loaded or loading. */
interface Load {
  readonly engine: Promise<ControlNetEngine>;
  /** Ends its loading, and the downloads; files that the browser has whole are kept. The listener hears no more of it. */
  readonly abort: AbortController;
  isDone: boolean;
}

export class EngineSession {
  private present: Load | undefined;
  private memory: MemoryChoice = "auto";
  /** GPU memory was full once, with all weights in it. */
  private outgrown = false;

  constructor(
    private readonly create: typeof createEngine,
    private addresses: readonly string[],
    private readonly listener: LoadListener,
  ) {}

  /** Load the engine unless it is loaded or loading. After a failure, the next call tries again. */
  load(): Promise<ControlNetEngine> {
    if (this.present !== undefined) return this.present.engine;
    const abort = new AbortController();
    const load: Load = { engine: this.start(abort.signal), abort, isDone: false };
    this.present = load;
    load.engine.then(
      () => {
        load.isDone = true;
      },
      (error) => {
        if (this.present === load) this.present = undefined;
        if (!abort.signal.aborted) this.listener.onFailed(error);
      },
    );
    return load.engine;
  }

  get isLoading(): boolean {
    return this.present?.isDone === false;
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

  /** Wait until the engine is loaded. An abort ends the wait, and the loading. */
  async ready(signal: AbortSignal): Promise<void> {
    const stop = () => {
      if (this.isLoading) this.giveUp();
    };
    if (signal.aborted) stop();
    signal.throwIfAborted();
    await new Promise((resolve, reject) => {
      const abort = () => {
        stop();
        reject(signal.reason);
      };
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
    const load = this.present;
    this.present = undefined;
    load?.abort.abort();
    void load?.engine.then((loaded) => loaded.unload()).catch(() => {}); // a broken engine may not answer
  }

  private async start(signal: AbortSignal): Promise<ControlNetEngine> {
    this.listener.onLoadStart();
    const [first, ...mirrors] = this.addresses;
    const engine = await mirrors.reduce(
      (attempt, mirror) =>
        attempt.catch((error) => {
          if (!isMissing(error) || signal.aborted) throw error;
          return this.createFrom(mirror, signal);
        }),
      this.createFrom(first, signal),
    );
    if (!signal.aborted) this.listener.onLoaded(engine.info);
    return engine;
  }

  private createFrom(bundleUrl: string, signal: AbortSignal): Promise<ControlNetEngine> {
    return this.create({
      bundleUrl,
      signal,
      memory: this.memory === "auto" && this.outgrown ? "reduced" : this.memory,
      onManifest: (manifest) => signal.aborted || this.listener.onManifest(manifest),
      onNotice: (text, notice) => signal.aborted || this.listener.onNotice(notice ?? text),
      onProgress: (progress) => signal.aborted || this.listener.onProgress(progress),
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
