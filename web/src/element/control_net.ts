/**
 * `<control-net bundle="./circles-webgpu/">`: draw, write, and see the picture. The easiest way to put a ControlNet into a page.
 *
 * Attributes: `bundle`, the folder's address; `prompt`, `seed` and `steps`, as in generate. The model loads when somebody first
 * draws or presses the button; with the attribute `eager`, at once. Another `prompt` replaces the text in the field, another
 * `bundle` the model. Parts for CSS: board, picture, prompt, button, status.
 * Events bubble. Their `detail`: `controlnet-ready` EngineInfo, `-step` Step, `-image` GeneratedImage, `-error` the error.
 */

import { type ControlNetEngine, codeOf, createEngine, type GeneratedImage, isAbort } from "../worker/index.ts";
import { contextOf, part, STYLE } from "./parts.ts";

const PROMPT = "What the picture shows";
const GENERATE = "Generate";

/** The element. */
export class ControlNetElement extends HTMLElement {
  static readonly observedAttributes = ["bundle", "eager", "prompt"];

  private engine: Promise<ControlNetEngine> | undefined;
  private running: AbortController | undefined;
  private unloading = new AbortController();
  private unloaded = Promise.resolve();
  private readonly board = part("canvas", "board", { width: 512, height: 512, ariaLabel: "Outline" });
  private readonly picture = part("canvas", "picture", { width: 512, height: 512 });
  private readonly field = part("input", "prompt", { placeholder: PROMPT, ariaLabel: PROMPT });
  private readonly button = part("button", "button", { textContent: GENERATE });
  private readonly erase = part("button", "button", { textContent: "Clear" });
  private readonly status = part("p", "status", { role: "status" });

  constructor() {
    super();
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style]; // which a policy without unsafe-inline allows
    root.append(this.board, this.picture, this.field, this.button, this.erase, this.status);
    this.button.onclick = () => (this.running ? this.running.abort() : void this.generate().catch(() => {}));
    this.erase.onclick = () => this.clear();
    this.field.onkeydown = ({ key }) => key === "Enter" && void this.generate().catch(() => {});
    this.board.onpointerdown = this.board.onpointermove = (event) => this.drawLine(event);
    this.board.ondragover = (event) => event.preventDefault();
    this.board.ondrop = (event) => void this.drop(event);
    this.clear();
  }

  connectedCallback(): void {
    if (this.hasAttribute("eager")) void this.load().catch(() => {});
  }

  attributeChangedCallback(name: string, before: string | null, value: string | null): void {
    if (name === "prompt" && value !== before) this.field.value = value ?? "";
    if (name === "bundle" && value !== before && this.engine !== undefined) {
      this.running?.abort();
      this.say("");
      this.unloaded = this.unload().catch(() => {});
    }
    if (name !== "prompt" && this.isConnected) this.connectedCallback();
  }

  /** An element that is moved in the page keeps its engine; one that is taken out of it frees the GPU. */
  disconnectedCallback(): void {
    queueMicrotask(() => this.isConnected || void this.unload());
  }

  /** Load the model, unless it is loaded or loading. After a failure, the next call tries again. */
  load(): Promise<ControlNetEngine> {
    const { signal } = this.unloading;
    this.engine ??= this.start(signal).catch((error) => {
      if (signal.aborted) throw error;
      this.engine = undefined;
      this.fail(error);
      throw error;
    });
    return this.engine;
  }

  /** Draw a picture of what is on the board. Rejects as generate of the engine does. */
  async generate(): Promise<GeneratedImage> {
    const running = new AbortController();
    this.running?.abort();
    this.running = running;
    this.button.textContent = "Cancel";
    try {
      const engine = await this.load();
      running.signal.throwIfAborted();
      const controlImage = contextOf(this.board).getImageData(0, 0, this.board.width, this.board.height);
      const image = await engine.generate(
        { prompt: this.field.value, controlImage, seed: this.number("seed"), numInferenceSteps: this.number("steps") },
        {
          signal: running.signal,
          onNotice: (notice) => this.say(notice),
          onStep: (step) => {
            this.say(`${step.index + 1} / ${step.count}`);
            this.tell("step", step);
          },
        },
      );
      Object.assign(this.picture, { width: image.width, height: image.height });
      contextOf(this.picture).putImageData(new ImageData(image.data, image.width, image.height), 0, 0);
      this.say("");
      this.tell("image", image);
      return image;
    } catch (error) {
      if (this.engine !== undefined) this.fail(error); // else `load` has told it
      throw error;
    } finally {
      if (this.running === running) {
        this.running = undefined;
        this.button.textContent = GENERATE;
      }
    }
  }

  /** Make the board black. */
  clear(): void {
    const { width, height } = this.board;
    contextOf(this.board).fillRect(0, 0, width, height);
  }

  /** Put a picture on the board, which takes its size. The engine scales it to the model's. */
  setControlImage(picture: ImageBitmap | HTMLCanvasElement): void {
    const { width, height } = picture;
    Object.assign(this.board, { width, height });
    contextOf(this.board).drawImage(picture, 0, 0);
  }

  /** End what runs and free the GPU. */
  async unload(): Promise<void> {
    const { engine, unloading } = this;
    Object.assign(this, { engine: undefined, unloading: new AbortController() });
    unloading.abort(); // of a load, with its downloads
    await (await engine?.catch(() => undefined))?.unload();
  }

  private async start(signal: AbortSignal): Promise<ControlNetEngine> {
    await this.unloaded; // of another bundle, so that the GPU never holds two
    signal.throwIfAborted();
    const bundleUrl = this.getAttribute("bundle") ?? "";
    const percent = new Map<string, number>();
    const engine = await createEngine({
      bundleUrl: bundleUrl && new URL(bundleUrl, this.baseURI),
      signal,
      onNotice: (notice) => this.say(notice),
      onProgress: ({ phase, done, total }) => {
        percent.set(phase, Math.floor((100 * done) / total));
        this.say([...percent].map(([name, value]) => `${name} ${value} %`).join(", "));
      },
    });
    this.say("");
    this.tell("ready", engine.info);
    return engine;
  }

  private fail(error: unknown): void {
    this.say(isAbort(error) ? "" : String((error as Error).message));
    if (["bug", "device-lost", "gpu-memory-full"].includes(codeOf(error))) void this.unload();
    this.tell("error", error);
  }

  /** Begin a line, or go on with it while a button is down. */
  private drawLine({ type, buttons, pointerId, offsetX, offsetY }: PointerEvent): void {
    const context = contextOf(this.board);
    const scale = this.board.width / this.board.clientWidth;
    if (type === "pointerdown") {
      this.board.setPointerCapture(pointerId);
      Object.assign(context, { strokeStyle: "white", lineCap: "round", lineWidth: this.board.width / 85 });
      context.beginPath();
      context.moveTo(offsetX * scale, offsetY * scale);
      void this.load().catch(() => {});
    }
    if (buttons) context.lineTo(offsetX * scale, offsetY * scale);
    context.stroke();
  }

  private async drop(event: DragEvent): Promise<void> {
    event.preventDefault();
    const [file] = event.dataTransfer?.files ?? [];
    if (file) await createImageBitmap(file).then(this.setControlImage.bind(this), this.fail.bind(this));
  }

  private number(name: string): number | undefined {
    return this.hasAttribute(name) ? Number(this.getAttribute(name)) : undefined;
  }

  private say(text: string): void {
    this.status.textContent = text;
  }

  private tell(name: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(`controlnet-${name}`, { detail, bubbles: true, composed: true }));
  }
}

customElements.define("control-net", ControlNetElement);
