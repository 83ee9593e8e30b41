/** The page's side: an engine that runs at the other end of a port, with the interface of a local one. */

import { resolveBundleUrl } from "../engine/bundle_address.ts";
import { abortError } from "../engine/errors.ts";
import type {
  BatchCallbacks,
  BatchRequest,
  ControlNetEngine,
  EngineInfo,
  EngineOptions,
  EngineStats,
  GenerateCallbacks,
  GeneratedImage,
  GenerateRequest,
  Image,
} from "../engine/index.ts";
import { IMAGE, MASK_IMAGE } from "../engine/inpainting.ts";
import { checkBatch, checkCallbacks, checkOptions } from "../engine/interface.ts";
import { checkPixels } from "../engine/prepare_image.ts";
import { checkRequest, controlImages, type Pictures } from "../engine/request.ts";
import { persistStorage } from "../engine/storage.ts";
import { type Call, type Port, type Reply, type StepData, unpackError } from "./protocol.ts";

/** Receives the replies to a running call. */
interface Listener {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly onEvent: (event: Reply) => void;
}

/** A call without an id, which the connection adds. */
type Unnumbered<T> = T extends { id: number } ? Omit<T, "id"> : never;

/** Calls on a port, matched with their replies. */
export class Connection {
  private readonly listeners = new Map<number, Listener>();
  private lastId = 0;
  private closed: Error | undefined;

  constructor(private readonly port: Port<Reply, Call>) {
    port.onmessage = ({ data: reply }) => {
      const listener = this.listeners.get(reply.id);
      if (reply.kind === "result") listener?.resolve(reply.value);
      else if (reply.kind === "error") listener?.reject(unpackError(reply.error));
      else listener?.onEvent(reply);
    };
  }

  /**
   * Make one call. An abort is passed on, and the call ends when the other side has stopped. What `onEvent` throws ends the
   * call, as it does in an engine of this thread.
   */
  async call<T>(
    call: Unnumbered<Exclude<Call, { kind: "abort" }>>,
    options: { signal?: AbortSignal; onEvent?: (event: Reply) => void } = {},
  ): Promise<T> {
    const { signal, onEvent = () => {} } = options;
    if (signal?.aborted) throw abortError(signal);
    if (this.closed !== undefined) throw this.closed;
    const id = ++this.lastId;
    const abort = () => this.port.postMessage({ kind: "abort", id }, []);
    signal?.addEventListener("abort", abort);
    try {
      return await new Promise((resolve, reject) => {
        const report = (event: Reply) => {
          try {
            onEvent(event);
          } catch (error) {
            abort();
            reject(error);
          }
        };
        this.listeners.set(id, { resolve: resolve as (value: unknown) => void, reject, onEvent: report });
        this.port.postMessage({ ...call, id } as Call, []);
      });
    } finally {
      signal?.removeEventListener("abort", abort);
      this.listeners.delete(id);
    }
  }

  /** End every running call and every later one with `error`. */
  close(error: Error): void {
    this.closed ??= error;
    for (const { reject } of this.listeners.values()) reject(error);
  }
}

/** Create the engine at the other end. `release` is called when it is unloaded or could not be created. */
export async function connectEngine(
  connection: Connection,
  options: EngineOptions,
  release: () => void,
): Promise<ControlNetEngine> {
  try {
    checkOptions(options);
    const { bundleUrl, device, memory, onManifest, onNotice, onProgress, persist, signal } = options;
    if (persist) await persistStorage(); // a worker cannot ask
    const { folder, query } = resolveBundleUrl(bundleUrl); // here: the worker may have another address than the page
    const onEvent = (event: Reply) => {
      if (event.kind === "manifest") onManifest?.(event.manifest);
      if (event.kind === "progress") onProgress?.(event.progress);
      if (event.kind === "notice") onNotice?.(event.text, event.notice);
    };
    const info = await connection.call<EngineInfo>(
      { kind: "create", bundleUrl: folder + query, device, memory },
      { signal, onEvent },
    );
    return new RemoteEngine(info, connection, release);
  } catch (error) {
    release();
    throw error;
  }
}

class RemoteEngine implements ControlNetEngine {
  private unloading: Promise<void> | undefined;

  constructor(
    private latest: EngineInfo,
    private readonly connection: Connection,
    private readonly release: () => void,
  ) {}

  get info(): EngineInfo {
    return this.latest;
  }

  async generate(request: GenerateRequest, callbacks: GenerateCallbacks = {}): Promise<GeneratedImage> {
    checkRequest(request);
    checkCallbacks(callbacks);
    checkPictures(request);
    const options = { signal: callbacks.signal, onEvent: this.reportTo(callbacks) };
    const { decodesPreviews } = callbacks;
    return this.connection.call<GeneratedImage>(
      { kind: "generate", request: plain(request), decodesPreviews },
      options,
    );
  }

  async generateAll(request: BatchRequest, callbacks: BatchCallbacks = {}): Promise<GeneratedImage[]> {
    checkBatch(request, callbacks);
    checkPictures(request);
    const images: GeneratedImage[] = [];
    const report = this.reportTo(callbacks);
    const onEvent = (event: Reply) => {
      report(event);
      if (event.kind !== "image") return;
      images.push(event.image);
      callbacks.onImage?.(event.image);
    };
    const { decodesPreviews, signal } = callbacks;
    await this.connection.call({ kind: "generateAll", request: plain(request), decodesPreviews }, { signal, onEvent });
    return images;
  }

  stats(): Promise<EngineStats> {
    return this.connection.call<EngineStats>({ kind: "stats" });
  }

  /** Also a worker that does not answer any more is ended. */
  unload(): Promise<void> {
    this.unloading ??= this.connection
      .call({ kind: "unload" })
      .catch(() => {})
      .then(this.release);
    return this.unloading;
  }

  private reportTo({ onStep, onNotice, onProgress, onQueue }: GenerateCallbacks): (event: Reply) => void {
    return (event) => {
      if (event.kind === "step") onStep?.(withPreview(event.step));
      if (event.kind === "notice") onNotice?.(event.text, event.notice);
      if (event.kind === "progress") onProgress?.(event.progress);
      if (event.kind === "queue") onQueue?.(event.ahead);
      if (event.kind === "info") this.latest = event.info;
    };
  }
}

/** Throws UserError for a picture without pixels, which could not be sent. */
function checkPictures(request: Pictures): void {
  for (const image of controlImages(request)) checkPixels(image);
  if (request.image != null && !(request.image instanceof Float32Array)) checkPixels(request.image, IMAGE);
  if (request.maskImage != null) checkPixels(request.maskImage, MASK_IMAGE);
}

/**
 * Copy a request, its lists and its pictures, without their pixels and numbers. The proxies that Vue and others wrap objects
 * in cannot be sent to a worker.
 */
function plain<T extends object>(request: T): T {
  return Object.fromEntries(Object.entries(request).map(([key, value]) => [key, plainValue(value)])) as T;
}

function plainValue(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plainValue);
  const { width, height, data } = (value ?? {}) as Partial<Image>;
  return ArrayBuffer.isView(data) ? { width, height, data } : value;
}

function withPreview(step: StepData) {
  return { ...step, preview: () => step.preview };
}
