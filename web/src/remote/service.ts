/**
 * An engine whose pictures are drawn by the service of `serve --bundle`: the interface of `../engine`, over HTTP.
 *
 * Python's twin of what is asked here is mlc_controlnet/serve/generate_api.py.
 */

import { OPTION_NAMES } from "../engine/constants.ts";
import { UserError } from "../engine/errors.ts";
import type {
  ControlNetEngine,
  EngineInfo,
  EngineOptions,
  GenerateCallbacks,
  GeneratedImage,
  GenerateRequest,
  Image,
  Notice,
  NoticeListener,
  Settings,
} from "../engine/index.ts";
import { parseManifest } from "../engine/manifest.ts";
import { separated } from "../engine/option_text.ts";
import { encodePng, readTexts } from "../engine/png.ts";
import { readEvents } from "./events.ts";
import { keepFile } from "./picture_file.ts";

/** A model of the service, as GET /v1/models lists it. */
export interface ServiceModel {
  readonly name: string;
  readonly target: string;
  readonly sizes: readonly { readonly width: number; readonly height: number }[];
  readonly controlnets: readonly { readonly name: string; readonly kind: string }[];
  readonly samplers: readonly string[];
  readonly bundle_sha256: string;
}

interface DrawnJson {
  readonly image: string;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly notices: readonly string[];
  /** For each of them its code and values; null of those that only Python makes, and missing in a service of another version. */
  readonly notice_codes?: readonly (Pick<Notice, "code" | "values"> | null)[];
}

const MODELS = "models/";

/** The models of the service at `address`; none if it does not answer. */
export async function listServiceModels(address: string, signal?: AbortSignal): Promise<readonly ServiceModel[]> {
  const answer = await fetch(`${address}models`, { signal })
    .then((response) => (response.ok ? response.json() : undefined))
    .catch(() => undefined);
  return Array.isArray(answer?.models) ? answer.models : [];
}

/** The address that stands for a model of the service, in place of a bundle's. */
export function serviceModelUrl(address: string, name: string): string {
  return `${address}${MODELS}${encodeURIComponent(name)}`;
}

/** Whether an address stands for a model of a service. */
export function isServiceModel(url: string | URL): boolean {
  return /(^|\/)v1\/models\/[^/]+$/.test(String(url));
}

/** Open a model of the service, as createEngine opens a bundle. Nothing is fetched but its manifest. */
export async function connectService(options: EngineOptions): Promise<ControlNetEngine> {
  const url = String(options.bundleUrl);
  const address = url.slice(0, url.lastIndexOf(MODELS));
  const name = decodeURIComponent(url.slice(address.length + MODELS.length));
  const { signal } = options;
  const [models, answer] = await Promise.all([listServiceModels(address, signal), ask(`${url}/manifest`, { signal })]);
  const model = models.find((one) => one.name === name);
  if (model === undefined) throw new UserError("model", name, "a model of the service", "choose another one");
  const manifest = parseManifest(new Uint8Array(await answer.arrayBuffer()));
  options.onManifest?.(manifest);
  const [library] = manifest.libraries;
  const memoryPlan = manifest.memory[library.file];
  const info: EngineInfo = {
    manifest,
    bundleSha256: model.bundle_sha256,
    device: model.target,
    runsOn: model.target === "llvm" ? "cpu" : "gpu",
    reason: `${location.host}`,
    threads: 0,
    dtype: library.dtype,
    memory: { name: "resident", ...memoryPlan.resident },
    memoryPlan,
    samplers: model.samplers,
  };
  return new ServiceEngine(info, address, name);
}

class ServiceEngine implements ControlNetEngine {
  constructor(
    readonly info: EngineInfo,
    private readonly address: string,
    private readonly model: string,
  ) {}

  /** Draw a picture. An abort closes the connection, and the service stops after its step. */
  async generate(request: GenerateRequest, callbacks: GenerateCallbacks = {}): Promise<GeneratedImage> {
    const { signal, onStep, onNotice, onQueue } = callbacks;
    const body = JSON.stringify({ ...(await bodyOf(request)), model: this.model, previews: true });
    const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
    const answer = await ask(`${this.address}generate`, { method: "POST", body, headers, signal });
    let picture: Promise<GeneratedImage> | undefined;
    const broken = (error: unknown) => {
      signal?.throwIfAborted();
      return unanswered(error);
    };
    for await (const { name, data } of readEvents(answer, broken)) {
      if (name === "job") onQueue?.(data.place as number);
      if (name === "progress" && data.preview) {
        const image = await decode(bytesOf(data.preview as string));
        const empty = new Float32Array();
        const [index, count] = [(data.step as number) - 1, data.steps as number];
        onStep?.({ index, count, timestep: Number.NaN, x: empty, x0: empty, preview: () => image });
      }
      if (name === "error") throw errorOf(data);
      if (name === "image") {
        const drawn = data as unknown as DrawnJson;
        tellNotices(drawn, onNotice);
        picture = pictureOf(drawn); // and read on: the service takes a closed connection for a cancel
      }
    }
    signal?.throwIfAborted();
    if (picture !== undefined) return picture;
    throw new UserError("service", "no picture", "one", "try again", "no-connection");
  }

  async generateAll(): Promise<GeneratedImage[]> {
    throw new Error("ask for one picture at a time");
  }

  async stats() {
    return { waiting: 0, dispatches: 0, peakGpuMebibytes: 0, gpuBytes: 0 };
  }

  async unload(): Promise<void> {}
}

/** Tell a picture's notices. What only Python makes stays a sentence in English. */
export function tellNotices(
  { notices, notice_codes }: Pick<DrawnJson, "notices" | "notice_codes">,
  onNotice: NoticeListener = () => {},
): void {
  for (const [i, text] of notices.entries()) {
    const coded = notice_codes?.[i];
    onNotice(text, coded ? ({ ...coded, text } as Notice) : undefined);
  }
}

/** The body of POST /v1/generate: options in snake_case, pictures as PNG in base64, arrays as lists. */
async function bodyOf(request: GenerateRequest): Promise<Record<string, unknown>> {
  const options = OPTION_NAMES.filter((name) => request[name as keyof GenerateRequest] != null);
  const body = Object.fromEntries(
    options.map((name) => [separated(name, "_"), request[name as keyof GenerateRequest] as unknown]),
  );
  const { controlImage, image, maskImage } = request;
  if (controlImage != null)
    body.control_image = await Promise.all([controlImage].flat().map((one) => toBase64(one as Image)));
  if (image != null) body.image = await toBase64(image as Image);
  if (maskImage != null) body.mask_image = await toBase64(maskImage as Image);
  return body;
}

async function ask(address: string, init: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(address, init);
  } catch (error) {
    init.signal?.throwIfAborted();
    throw unanswered(error);
  }
  if (answer.ok) return answer;
  throw errorOf(await answer.json().catch(() => ({})));
}

/** The error of a service that does not answer, or no longer. */
function unanswered(error: unknown): UserError {
  return new UserError("service", String(error), "an answer", "see whether it still runs", "no-connection");
}

/** The error of an answer, in its four parts. */
function errorOf(data: Readonly<Record<string, unknown>>): UserError {
  const parts = (data.error ?? {}) as Record<string, string>;
  const { subject = "service", got = "an error", wanted = "a picture", remedy = "try again" } = parts;
  return new UserError(subject, got, wanted, remedy);
}

async function pictureOf({ image, settings }: DrawnJson): Promise<GeneratedImage> {
  const bytes = bytesOf(image);
  const named = Object.fromEntries(OPTION_NAMES.map((name) => [name, settings[separated(name, "_")]]));
  const picture: GeneratedImage = {
    ...(await decode(bytes)),
    latents: new Float32Array(),
    settings: named as unknown as Settings,
    metadata: await readTexts(bytes),
  };
  keepFile(picture, new Blob([bytes], { type: "image/png" }));
  return picture;
}

async function decode(bytes: Uint8Array<ArrayBuffer>): Promise<Image> {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d") as OffscreenCanvasRenderingContext2D;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, data } as Image;
}

async function toBase64(image: Image): Promise<string> {
  const bytes = new Uint8Array(await (await encodePng(image)).arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
