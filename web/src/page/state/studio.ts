/**
 * The state of the page: one store of signals for the whole request, what the bundle offers, and what happens.
 *
 * Data flows one way: a component reads signals and calls functions that set them; `request.ts` reads the request from them,
 * `run.ts` gives it to the engine and sets `status`, `preview` and `result`.
 */

import { computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { DeviceChoice, EngineInfo, GeneratedImage, Image, Manifest, MemoryChoice, Settings } from "../../worker";
import { EMPTY } from "../drawing/control_shape";
import type { Size } from "../drawing/marks";
import { Photo } from "../drawing/photo";
import { isSubject, type Subject } from "../samples/outlines";
import { t } from "../text";
import { BUNDLED_MODEL, ControlUnit } from "./control_unit";
import type { Link } from "./link";
import { Messages } from "./messages";

/** What a drawing starts from: noise, a picture, or a picture of which a part is repainted. */
export type Mode = "txt2img" | "img2img" | "inpaint";

/** The page's current work. */
export interface Status {
  /** Says it in the page's language. */
  readonly text: () => string;
  /** 0..1 */
  readonly fraction: number;
  readonly isBusy: boolean;
}

/** The size of boards before the bundle is known. */
const FIRST_SIZE: Size = { width: 128, height: 128 };

/** The settings of the request; undefined leaves an option to the bundle. */
export function createRequest() {
  return {
    prompt: signal(t.peek().firstPrompt),
    negativePrompt: signal(""),
    sampler: signal<string | undefined>(undefined),
    steps: signal<number | undefined>(undefined),
    guidance: signal<number | undefined>(undefined),
    rescale: signal<number | undefined>(0),
    seed: signal<number | undefined>(7),
    size: signal<Size>(FIRST_SIZE),
    mode: signal<Mode>("txt2img"),
    /** Of img2img and of inpainting: the share of the steps that run on the noised picture. */
    strength: signal<number | undefined>(undefined),
    /** Pixels. */
    maskBlur: signal<number | undefined>(0),
    /** Whether only the part around the mask is drawn, at the model's full size. */
    onlyMasked: signal(false),
    /** Pixels around the mask that are drawn with it. */
    maskPadding: signal<number | undefined>(32),
    maskedContent: signal<Settings["maskedContent"]>("original"),
    /** Pictures of one run, of consecutive seeds. */
    count: signal<number | undefined>(1),
    /** Options without a field, which a restored picture has brought. */
    others: signal<Partial<Settings>>({}),
  };
}

export type RequestState = ReturnType<typeof createRequest>;

export class Studio {
  readonly request = createRequest();
  readonly photo = new Photo(FIRST_SIZE);
  readonly controls: Signal<readonly ControlUnit[]>;
  readonly memory: Signal<MemoryChoice> = signal("auto");
  /** What draws, if the page's address says so. */
  device: DeviceChoice = "auto";
  /** What the page's address asks for, until it is done. */
  link: Link | undefined;

  /** What the bundle offers; undefined before its manifest is read. */
  readonly manifest: Signal<Manifest | undefined> = signal(undefined);
  /** The loaded engine; undefined before. */
  readonly engine: Signal<EngineInfo | undefined> = signal(undefined);

  readonly status: Signal<Status> = signal({
    text: () => t.value.starting,
    fraction: 0,
    isBusy: true,
  });
  readonly messages = new Messages();
  /** The run under way. */
  readonly running: Signal<AbortController | undefined> = signal(undefined);
  readonly preview: Signal<Image | undefined> = signal(undefined);
  /** The last finished picture. */
  readonly result: Signal<GeneratedImage | undefined> = signal(undefined);
  /** Whether the model is the one that comes with the project, or not known yet. */
  readonly isBundledModel: ReadonlySignal<boolean>;
  /** The modes that the bundle offers; the first is the one that the page begins with. */
  readonly modes: ReadonlySignal<readonly Mode[]>;
  /** The sizes of the bundle's pictures; the first is the default. */
  readonly sizes: ReadonlySignal<readonly Size[]>;
  private nextId = 1;

  constructor() {
    this.controls = signal([this.createUnit()]);
    this.isBundledModel = computed(() => (this.manifest.value?.model.name ?? BUNDLED_MODEL) === BUNDLED_MODEL);
    this.modes = computed(() => modesOf(this.manifest.value));
    this.sizes = computed(() => sizesOf(this.manifest.value));
    effect(() => {
      this.photo.hasMask.value = this.request.mode.value === "inpaint"; // whoever sets the mode
    });
  }

  /** The ControlNets of the bundle that no unit uses. */
  get unusedControlnets() {
    const used = new Set(this.controls.value.map(({ controlnet }) => controlnet.value));
    return (this.manifest.value?.controlnets ?? []).filter(({ name }) => !used.has(name));
  }

  /** Add a unit for a ControlNet, or for one that no unit uses. */
  addControl(entry = this.unusedControlnets[0]): void {
    if (entry === undefined) return;
    const unit = this.createUnit();
    unit.use(entry);
    unit.drawFreely();
    unit.drawing.beginWith(EMPTY);
    unit.recommend(this.manifest.peek()?.defaults.conditioning_scale ?? 1);
    this.controls.value = [...this.controls.peek(), unit];
  }

  removeControl(unit: ControlUnit): void {
    this.messages.clearAt(unit.id);
    this.controls.value = this.controls.peek().filter((other) => other !== unit);
  }

  /** Whether a unit can be switched on and off: one that is alone can be switched on only. */
  canSwitch({ enabled }: ControlUnit): boolean {
    return this.controls.value.length > 1 || !enabled.value;
  }

  /** Ask for what a sample shows, unless the visitor has written a prompt. */
  suggestPrompt(subject: Subject | undefined): void {
    const { prompt } = this.request;
    const isTheirs = prompt.peek().trim() !== "" && !isSubject(prompt.peek());
    if (subject !== undefined && !isTheirs) prompt.value = subject;
  }

  /** Set the size of the pictures, and of every board. */
  setSize(size: Size): void {
    this.request.size.value = size;
    this.photo.setSize(size);
    for (const { drawing } of this.controls.peek()) drawing.setSize(size);
  }

  setStatus(text: () => string, fraction = this.status.peek().fraction): void {
    this.status.value = { text, fraction, isBusy: true };
  }

  /** Show the result of finished work. */
  endStatus(text: () => string, fraction = 0): void {
    this.status.value = { text, fraction, isBusy: false };
  }

  private createUnit(): ControlUnit {
    const unit = new ControlUnit(this.nextId++, this.request.size.peek());
    let isTold = false;
    effect(() => {
      const failure = unit.drawing.failure.value; // of its annotator: told once, and taken back when it works again
      if (isTold) this.messages.clearAt(unit.id);
      isTold = failure !== undefined;
      if (isTold) this.messages.error(failure, unit.id);
    });
    return unit;
  }
}

function modesOf(manifest: Manifest | undefined): readonly Mode[] {
  if (manifest === undefined) return ["txt2img"];
  const sample = manifest.components.unet?.inputs.find(({ name }) => name === "sample");
  if (sample?.shape[1] !== manifest.model.latent_channels) return ["inpaint"];
  return manifest.components.vae_encoder === undefined ? ["txt2img"] : ["txt2img", "img2img", "inpaint"];
}

function sizesOf(manifest: Manifest | undefined): readonly Size[] {
  if (manifest === undefined) return [];
  const sizes = [manifest.model, ...manifest.variants].map(({ width, height }) => ({ width, height }));
  return sizes.filter((size, i) => sizes.findIndex((s) => s.width === size.width && s.height === size.height) === i);
}
