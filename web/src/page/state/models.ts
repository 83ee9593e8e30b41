/** The models that the page can open, which one it has open, and how long each takes on this GPU. */

import { type Signal, signal } from "@preact/signals";
import { type Model, readCatalogue } from "../models/catalogue";
import { isObject, isText, keep, readKept } from "./kept";

const CHOSEN = "model";
const TIMES = "seconds of a step";

export class Models {
  readonly list: Signal<readonly Model[]> = signal([]);
  readonly current: Signal<Model | undefined> = signal(undefined);
  /** Features of this machine's GPU; undefined before it is asked, or without one. */
  private readonly features: Signal<ReadonlySet<string> | undefined> = signal(undefined);
  private readonly times: Signal<Record<string, unknown>> = signal(readKept(TIMES, isObject) ?? {});
  onChosen: (model: Model) => void = () => {};
  /** The visitor opens the model once more that is open, which may have failed to load. */
  onChosenAgain: () => void = () => {};
  /** Whether another model can be opened now: not while a picture is drawn. */
  isFree: () => boolean = () => true;

  private opening: Promise<Model> | undefined;

  constructor(
    /** The name of the model that a link asks for; empty if none does. */
    private readonly linked = "",
  ) {}

  /** Read the list, once; the model of the link is open, else that of the last visit, else the first. */
  open(): Promise<Model> {
    this.opening ??= this.read();
    return this.opening;
  }

  private async read(): Promise<Model> {
    this.list.value = await readCatalogue();
    const chosen = readKept(CHOSEN, isText);
    const linked = this.named(this.linked, chosen);
    const model = linked ?? this.list.value.find(({ url }) => url === chosen) ?? this.list.value[0];
    this.current.value = model;
    if (linked !== undefined) keep(CHOSEN, linked.url); // the link is followed once, and a reload stays with its model
    void this.askGpu();
    return model;
  }

  /** The model of a name; of several, rather the one at `last`, such as the one that is open. */
  named(name: string, last = this.current.peek()?.url): Model | undefined {
    const found = this.list.peek().filter((model) => name !== "" && model.name === name);
    return found.find(({ url }) => url === last) ?? found[0];
  }

  /** Open another model. Returns whether it can be opened now. */
  choose(model: Model): boolean {
    if (!this.isFree()) return false;
    if (model.url === this.current.peek()?.url) {
      this.onChosenAgain();
      return true;
    }
    this.current.value = model;
    keep(CHOSEN, model.url);
    this.onChosen(model);
    return true;
  }

  /** Add a model of the visitor's, and open it if that can be done now. Returns whether it is opened. */
  add(model: Model): boolean {
    this.list.value = [...this.list.peek().filter(({ url }) => url !== model.url), model];
    return this.choose(model);
  }

  /** Whether this machine's GPU is known to lack a feature. */
  lacks(feature: string): boolean {
    return this.features.value !== undefined && !this.features.value.has(feature);
  }

  /** Remember how long a step took. */
  noteTime({ url }: Model, secondsOfStep: number): void {
    this.times.value = { ...this.times.peek(), [url]: secondsOfStep };
    keep(TIMES, this.times.value);
  }

  /** The seconds that a picture of this model takes here; undefined before one was drawn. */
  secondsOf({ url, steps }: Model): number | undefined {
    const time = this.times.value[url];
    return typeof time === "number" && steps !== undefined ? time * steps : undefined;
  }

  private async askGpu(): Promise<void> {
    try {
      const adapter = await navigator.gpu?.requestAdapter();
      if (adapter) this.features.value = new Set(adapter.features);
    } catch {
      // the load of the engine says what is wrong
    }
  }
}
