/** Load the engine, and draw pictures with it. */

import { batch } from "@preact/signals";
import { pictureFile } from "../../remote/picture_file";
import { connectService, isServiceModel } from "../../remote/service";
import {
  createEngine,
  type EngineInfo,
  encodePng,
  type GeneratedImage,
  type GenerateRequest,
  isAbort,
  type Manifest,
  type Progress,
} from "../../worker";
import { unitName } from "../controls/descriptions";
import { LoadProgress, seconds, stepText } from "../results/progress_text";
import { isSubject } from "../samples/outlines";
import { samplesFor } from "../samples/samples";
import { t } from "../text";
import { reasonText } from "../text/engine_text";
import type { ControlNetEntry, ControlUnit } from "./control_unit";
import { EngineSession } from "./engine_session";
import type { Gallery } from "./gallery";
import type { Models } from "./models";
import { leaveOutOthers } from "./options";
import { readRequest } from "./request";
import type { Studio } from "./studio";

/** The engine of a studio: what loads it, draws with it and cancels. */
export class Run {
  private readonly session: EngineSession;
  private loading = new LoadProgress();

  constructor(
    private readonly studio: Studio,
    private readonly models: Models,
    private readonly gallery: Gallery,
  ) {
    models.onChosen = () => this.openAnother();
    models.onChosenAgain = () => this.openAgain();
    models.isFree = () => studio.running.peek() === undefined;
    const open: typeof createEngine = (options) =>
      isServiceModel(options.bundleUrl) ? connectService(options) : createEngine({ ...options, device: studio.device });
    this.session = new EngineSession(open, ["./bundle/"], {
      onLoadStart: () => this.onLoadStart(),
      onManifest: (manifest) => adapt(studio, manifest),
      onNotice: (notice) => studio.messages.notice(notice),
      onProgress: (progress) => this.onProgress(progress),
      onLoaded: (info) => this.onLoaded(info),
      onFailed: (error) => this.onFailed(error),
    });
  }

  /** Load the engine. What becomes of it is told to the studio. */
  load(): void {
    this.useModel();
    this.session.load().catch(() => {}); // `onFailed` tells it
  }

  /** Draw a picture of the present request. */
  async generate(): Promise<void> {
    const { studio, session } = this;
    const { messages } = studio;
    if (studio.running.peek() !== undefined) return;
    messages.clear();
    const abort = new AbortController();
    const { signal } = abort;
    studio.running.value = abort;
    try {
      await this.models.open(); // the run may begin before the list is read
      this.useModel();
      await session.ready(signal);
      const request = await readRequest(studio);
      tellOfBoards(studio); // not before: an annotator may have worked, and the size may not have been known
      const count = Math.max(1, Math.round(studio.request.count.peek() ?? 1));
      let { seed } = request;
      const began = performance.now();
      for (let i = 0; i < count; i++) {
        const prefix = () => (count > 1 ? t.value.pictureOf(i + 1, count) : "");
        const picture = await this.draw({ ...request, seed }, signal, prefix);
        seed = picture.settings.seed + 1;
      }
      const [elapsed, lastSeed] = [performance.now() - began, (seed ?? 1) - 1];
      studio.endStatus(() => t.value.done(seconds(elapsed), lastSeed), 1);
    } catch (error) {
      if (isAbort(error)) studio.endStatus(() => t.value.cancelled);
      else {
        messages.error(error);
        studio.endStatus(() => t.value.stopped);
      }
    } finally {
      studio.preview.value = undefined;
      studio.running.value = undefined;
    }
  }

  /** Tell the session which bundle the next engine has, and how it uses memory. */
  private useModel(): void {
    this.session.useMemory(this.studio.memory.peek());
    const model = this.models.current.peek();
    if (model !== undefined) this.session.useBundle([model.url, ...model.mirrors]);
  }

  /** Draw one picture of a run. */
  private async draw(request: GenerateRequest, signal: AbortSignal, prefix: () => string): Promise<GeneratedImage> {
    const { studio, session } = this;
    const { messages } = studio;
    const began = performance.now();
    let stepsBegan = began;
    const loading = new LoadProgress();
    studio.setStatus(() => prefix() + t.value.readingPrompt, 0);
    const picture = await session.generate(request, {
      signal,
      decodesPreviews: true,
      onNotice: (text, notice) => messages.notice(notice ?? text),
      onProgress: (progress) => {
        loading.add(progress);
        studio.setStatus(() => prefix() + loading.text, loading.fraction);
        stepsBegan = performance.now();
      },
      onStep: (step) => {
        const { index, count } = step;
        const elapsed = performance.now() - stepsBegan;
        studio.setStatus(() => prefix() + stepText(index, count, elapsed), (index + 1) / count);
        studio.preview.value = step.decodedPreview ?? step.preview();
      },
    });
    const ended = performance.now();
    batch(() => {
      studio.preview.value = undefined;
      studio.result.value = picture;
    });
    const steps = picture.settings.numInferenceSteps;
    const model = this.models.current.peek();
    if (model !== undefined) this.models.noteTime(model, (ended - began) / 1000 / steps);
    const detail = { ...(await session.stats()), steps };
    performance.measure("mlc-controlnet generate", { start: began, end: ended, detail });
    await this.keep(picture, request);
    return picture;
  }

  /** Put a picture into the gallery, with what its ControlNets were given. */
  private async keep(picture: GeneratedImage, { controlImage }: GenerateRequest): Promise<void> {
    const images = controlImage === undefined ? [] : [controlImage].flat();
    await this.gallery.add({
      created: Date.now(),
      png: await pictureFile(picture),
      settings: picture.settings,
      model: this.studio.manifest.peek()?.model.name ?? "",
      controls: await Promise.all(images.map((image) => encodePng(image))),
    });
  }

  /** Free the engine, and load that of another model. */
  private openAnother(): void {
    const { studio } = this;
    studio.messages.clear();
    batch(() => {
      studio.engine.value = undefined;
      studio.manifest.value = undefined;
      studio.result.value = undefined;
      studio.request.steps.value = undefined;
      studio.request.guidance.value = undefined;
      studio.request.sampler.value = undefined;
    });
    this.load();
  }

  /** Load the engine once more if it failed to load. */
  private openAgain(): void {
    const { studio, session } = this;
    if (studio.engine.peek() !== undefined || session.isLoading) return;
    studio.messages.clear();
    this.load();
  }

  /** Cancel the run under way after its present step. */
  cancel(): void {
    this.studio.setStatus(() => t.value.cancelling);
    this.studio.running.peek()?.abort();
  }

  private onLoadStart(): void {
    performance.mark("load begins");
    const loading = new LoadProgress();
    this.loading = loading;
    this.studio.setStatus(() => loading.text, 0);
  }

  private onProgress(progress: Progress): void {
    const { loading } = this;
    loading.add(progress);
    this.studio.setStatus(() => loading.text, loading.fraction);
  }

  private onFailed(error: unknown): void {
    const { studio } = this;
    if (studio.running.peek() !== undefined) return; // the run that waits for the engine reports the error
    studio.messages.error(error);
    studio.endStatus(() => t.value.notLoaded);
  }

  private onLoaded(info: EngineInfo): void {
    const { studio } = this;
    const { device, dtype, runsOn } = info;
    performance.measure("mlc-controlnet load", { start: "load begins", detail: { device, dtype } });
    studio.engine.value = info;
    const { sampler } = studio.request; // that of a link or of the last visit came before the bundle's were known
    if (sampler.peek() !== undefined && !info.samplers.includes(String(sampler.peek()))) {
      const missing = String(sampler.peek());
      studio.messages.notice(() => t.value.samplerMissing(missing));
      sampler.value = undefined;
    }
    sampler.value ??= info.manifest.samplers.default;
    studio.endStatus(() => (runsOn === "gpu" ? t.value.ready : t.value.readyOnProcessor(reasonText(info))));
  }
}

/** Tell of boards that are empty, and of the changes that made opened pictures fit. */
function tellOfBoards({ controls, messages }: Studio): void {
  const units = controls.peek();
  for (const unit of units) {
    const { enabled, drawing } = unit;
    if (!enabled.peek()) continue;
    const name = () => (units.length > 1 ? unitName(unit, units) : undefined);
    if (drawing.isEmpty()) messages.notice(() => t.value.boardEmpty(name()));
    const subject = () => t.value.controlImageOf(name());
    for (const notice of drawing.notices) messages.notice(notice, "request", subject);
  }
}

/** Adapt the page to the bundle. What the visitor has filled in keeps its value. */
function adapt(studio: Studio, manifest: Manifest): void {
  const { request } = studio;
  const { model, defaults, controlnets } = manifest;
  const isOpen = studio.manifest.peek() !== undefined; // and only its engine is loaded anew
  studio.manifest.value = manifest;
  const { width, height } = request.size.peek();
  const isOffered = studio.sizes.peek().some((size) => size.width === width && size.height === height);
  if (!isOpen || !isOffered) studio.setSize({ width: model.width, height: model.height });
  request.steps.value ??= defaults.steps;
  request.guidance.value ??= defaults.guidance_scale;
  if (!studio.modes.peek().includes(request.mode.peek())) request.mode.value = studio.modes.peek()[0];
  for (const notice of leaveOutOthers(studio)) studio.messages.notice(notice);
  const units = unitsFor(controlnets, studio.controls.peek());
  studio.controls.value = units;
  const ofUnit = (unit: ControlUnit) => controlnets.find(({ name }) => name === unit.controlnet.peek());
  const taken = new Set(units.map(ofUnit));
  const others = controlnets.filter((entry) => !taken.has(entry));
  for (const unit of units) {
    unit.use(ofUnit(unit) ?? (others.shift() as ControlNetEntry));
    unit.recommend(defaults.conditioning_scale);
    if (studio.isBundledModel.peek()) unit.drawOneRing();
    else unit.drawFreely();
  }
  if (studio.isBundledModel.peek() && isSubject(request.prompt.peek())) request.prompt.value = t.peek().firstPrompt;
  if (!studio.isBundledModel.peek() && request.prompt.peek() === t.peek().firstPrompt) request.prompt.value = "";
  if (units[0]?.kind.peek() === "scribble") beginWithScribble(studio, units[0]);
}

/** The units that there are ControlNets for: rather those that take part, and of them those whose ControlNet is there. */
function unitsFor(controlnets: readonly ControlNetEntry[], units: readonly ControlUnit[]): readonly ControlUnit[] {
  const names = new Set(controlnets.map(({ name }) => name));
  const rank = ({ enabled, controlnet }: ControlUnit) =>
    2 * Number(enabled.peek()) + Number(names.has(controlnet.peek()));
  const kept = new Set([...units].sort((one, other) => rank(other) - rank(one)).slice(0, controlnets.length));
  return units.filter((unit) => kept.has(unit));
}

/** Put the first sample on the board, and its name into the prompt: one press draws, and the first own line replaces it. */
function beginWithScribble(studio: Studio, { drawing, kind }: ControlUnit): void {
  const [{ shape, subject }] = samplesFor(kind.peek(), false);
  const example = shape(drawing.size, "none");
  if (example.kind !== "strokes" || !drawing.beginWith({ ...example, isExample: true })) return;
  studio.suggestPrompt(subject);
}
