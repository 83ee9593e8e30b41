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
  type Progress,
} from "../../worker";
import { LoadProgress, seconds, stepText } from "../results/progress_text";
import { t } from "../text";
import { reasonText } from "../text/engine_text";
import { adapt, adaptSampler, leaveModel } from "./adapt";
import { EngineSession } from "./engine_session";
import type { Gallery } from "./gallery";
import type { Models } from "./models";
import { readRequest, tellOfBoards } from "./request";
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
    leaveModel(studio);
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
    adaptSampler(studio, info);
    studio.endStatus(() => (runsOn === "gpu" ? t.value.ready : t.value.readyOnProcessor(reasonText(info))));
  }
}
