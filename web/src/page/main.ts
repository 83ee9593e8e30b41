/** The demo page: wires the drawing board, the form and the engine. */

import {
  createEngine,
  type EngineInfo,
  encodePng,
  type GenerateRequest,
  gigabytes,
  type Image,
  inpaints,
  isAbort,
  type Manifest,
  type MemoryChoice,
  type MemoryPlan,
  OPTION_NAMES,
  optionWords,
  type Progress,
  UserError,
} from "../worker";
import { readPicture, saveFile } from "./canvas";
import { DrawingBoard, type Tool } from "./drawing_board";
import { isOutline } from "./edges";
import { EngineSession } from "./engine_session";
import { Messages } from "./messages";
import { openedPicture } from "./opened_picture";
import { drawShape, EMPTY } from "./outline";
import { PictureCard } from "./picture_card";
import { linkPictureTools } from "./picture_tools";
import { LoadProgress, seconds, stepText } from "./progress_text";
import { linkSwatches, type Palette } from "./prompt_colors";
import { RepaintBoard } from "./repaint_board";
import { linkRepaintCard } from "./repaint_card";
import { addSamples, SAMPLES } from "./samples";
import { StatusLine } from "./status_line";

const SAMPLER_NAMES: Readonly<Record<string, string>> = {
  ddim: "DDIM",
  ddpm: "DDPM",
  pndm: "PNDM",
  lms: "LMS",
  euler: "Euler",
  euler_a: "Euler a",
  heun: "Heun",
  dpm2: "DPM2",
  dpm2_a: "DPM2 a",
  dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_sde: "DPM++ 2M SDE",
  dpmpp_2s: "DPM++ 2S",
  dpmpp_2s_sde: "DPM++ 2S SDE",
  dpmpp_sde: "DPM++ SDE",
  unipc: "UniPC",
  deis: "DEIS",
  lcm: "LCM",
  tcd: "TCD",
};

const HINTS: Readonly<Record<Tool, string>> = {
  ring: "Drag from the middle outwards",
  pencil: "Draw a closed line",
  eraser: "Erase what is too much",
};

/** The page offers to save GPU memory if the model takes this many bytes, or if its address has `?memory=`. */
const MEMORY_WORTH_A_SETTING = 1e9;

/** The colour names of the bundled model; empty if the page is built without the model. */
const palettes = import.meta.glob<Palette>("../../../mlc_controlnet/models/circles/colors.json", {
  eager: true,
  import: "default",
});

/** The model that knows these colours. */
const BUNDLED_MODEL = "circles";

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const form = byId<HTMLFormElement>("form");
const generateButton = byId<HTMLButtonElement>("generate");
const cancelButton = byId<HTMLButtonElement>("cancel");
/** For phones, on which the other button is out of sight. */
const cancelInSight = byId<HTMLButtonElement>("cancel-in-sight");
const cancelButtons = [cancelButton, cancelInSight];
const messages = new Messages(byId("messages"));
const status = new StatusLine(byId("progress-bar"), byId("status"), byId<HTMLProgressElement>("progress"));
const board = new DrawingBoard(byId<HTMLCanvasElement>("board"), ...SAMPLES[0]);
const photo = new RepaintBoard(byId<HTMLCanvasElement>("photo"));
const pictureCard = new PictureCard(
  byId<HTMLCanvasElement>("picture"),
  byId("placeholder"),
  byId<HTMLButtonElement>("download"),
  byId<HTMLButtonElement>("repaint-picture"),
  (picture) => photo.open(picture),
);
const session = new EngineSession(createEngine, "./bundle/", { onLoadStart, onManifest, onProgress, onLoaded });

let loadProgress = new LoadProgress();
/** Whether this is an inpainting model. */
let repaints = false;
/** The one ControlNet that the board draws for, of a bundle that may have several. */
let controlnets: readonly string[] = [];
/** Whether the model was trained only on outlines. The page then replaces an opened photo by its edges. */
let wantsOutlines = true;
let running: AbortController | undefined;
/** The board that Ctrl+Z applies to. */
let lastChanged: DrawingBoard | RepaintBoard = board;

function onLoadStart(): void {
  performance.mark("load begins");
  loadProgress = new LoadProgress();
  status.progress(loadProgress.text, 0);
}

function onProgress(progress: Progress): void {
  loadProgress.add(progress);
  status.progress(loadProgress.text, loadProgress.fraction);
}

/** Adapt the page to the bundle. Fields that the visitor has filled in keep their values. */
function onManifest(manifest: Manifest): void {
  const { model, defaults } = manifest;
  repaints = inpaints(manifest);
  controlnets = manifest.controlnets.slice(0, 1).map(({ name }) => name);
  board.setSize(model.width, model.height);
  photo.setSize(model.width, model.height);
  byId("repaint").hidden = byId("repaint-picture").hidden = !repaints;
  document.body.style.setProperty("--aspect", `${model.width} / ${model.height}`);
  fillIfEmpty("numInferenceSteps", defaults.steps);
  fillIfEmpty("guidanceScale", defaults.guidance_scale);
  fillIfEmpty("controlnetConditioningScale", defaults.conditioning_scale);
  if (model.name !== BUNDLED_MODEL) speakOfAnyModel();
}

/** Replace the texts that are about discs of two colours, which only the bundled model draws. */
function speakOfAnyModel(): void {
  wantsOutlines = false;
  const title = repaints ? "Brush over a part, describe what belongs there" : "Draw an outline, describe the picture";
  document.title = title;
  byId("title").textContent = title;
  byId("subject").textContent = repaints ? "repaints a part of your photo" : "paints the picture";
  byId("colors").hidden = true;
  const prompt = field("prompt");
  if (prompt.value === prompt.defaultValue) prompt.value = "";
  prompt.placeholder = repaints ? "What belongs there" : "What the picture shows";
}

function onLoaded(info: EngineInfo): void {
  const { manifest, samplers, bundleSha256, dtype, device, runsOn, reason, memory, memoryPlan } = info;
  performance.measure("mlc-controlnet load", { start: "load begins", detail: { device, dtype } });
  const { model } = manifest;
  const sampler = field<HTMLSelectElement>("sampler");
  if (sampler.options.length === 0) {
    const isDefault = (name: string) => name === manifest.samplers.default;
    sampler.append(
      ...samplers.map((name) => new Option(SAMPLER_NAMES[name] ?? name, name, isDefault(name), isDefault(name))),
    );
  }
  offerMemory(memoryPlan);
  byId("about").textContent =
    `Model ${model.name}, ${model.width}×${model.height}, ${dtype} on ${device} (${reason}), ` +
    `${gigabytes(memory.peak_bytes)} of ${runsOn === "gpu" ? "GPU " : ""}memory. Bundle ${bundleSha256.slice(0, 12)}.`;
  status.result(runsOn === "gpu" ? "Ready" : `Ready, on the processor: ${reason}`);
}

/** Show how much memory each choice needs. A small model leaves nothing to choose. */
function offerMemory({ resident, reduced }: MemoryPlan): void {
  const { options } = field<HTMLSelectElement>("memory");
  options[1].text = `Keep the model there: ${gigabytes(resident.peak_bytes)}`;
  options[2].text = `Save memory: ${gigabytes(reduced.peak_bytes)}, slower`;
  if (resident.peak_bytes >= MEMORY_WORTH_A_SETTING) byId("memory-choice").hidden = false;
}

function field<T extends HTMLElement = HTMLInputElement>(name: string): T {
  return form.elements.namedItem(name) as unknown as T;
}

function fillIfEmpty(name: string, value: number): void {
  if (field(name).value === "") field(name).value = String(value);
}

async function generate(): Promise<void> {
  messages.clear();
  if (board.isEmpty()) {
    messages.notice("The drawing board is empty: the picture will follow only the prompt.");
  }
  for (const notice of board.notices) messages.notice(notice);
  running = new AbortController();
  const { signal } = running;
  setRunning(true);
  pictureCard.scrollIntoView();
  try {
    session.useMemory(field("memory").value as MemoryChoice);
    await session.ready(signal);
    const repainted = repaints ? readPhoto() : {};
    const began = performance.now();
    status.progress("Reading the prompt…", 0);
    const picture = await session.generate(
      { ...readRequest(), ...repainted },
      {
        signal,
        onNotice: (notice) => messages.notice(notice),
        onStep: (step) => {
          status.progress(stepText(step.index, step.count, performance.now() - began), (step.index + 1) / step.count);
          pictureCard.showPreview(step.preview());
        },
      },
    );
    const ended = performance.now();
    pictureCard.showFinished(picture);
    status.result(`Done in ${seconds(ended - began)} with seed ${picture.settings.seed}`, 1);
    const detail = { ...(await session.stats()), steps: picture.settings.numInferenceSteps };
    performance.measure("mlc-controlnet generate", { start: began, end: ended, detail });
  } catch (error) {
    pictureCard.restore();
    if (isAbort(error)) {
      status.result("Cancelled");
    } else {
      messages.error(labelled(error));
      status.result("Stopped");
    }
  } finally {
    running = undefined;
    setRunning(false);
  }
}

/** Read the form, whose fields have the names of the options. An empty number leaves its option to the bundle. */
function readRequest(): GenerateRequest {
  const options = OPTION_NAMES.map((name) => {
    const control = form.elements.namedItem(name);
    if (!(control instanceof HTMLInputElement || control instanceof HTMLSelectElement)) return [name, undefined];
    const { type, value } = control;
    if (type !== "number") return [name, value];
    return [name, value === "" ? undefined : Number(value)];
  });
  return {
    ...Object.fromEntries(options),
    controlnets,
    controlImage: controlnets.length ? board.controlImage() : undefined,
  };
}

/** Give an error about an option the label of the option's field as its subject. */
function labelled(error: unknown): unknown {
  if (!(error instanceof UserError)) return error;
  const option = OPTION_NAMES.find((name) => optionWords(name) === error.subject);
  const control = option === undefined ? null : form.elements.namedItem(option);
  if (!(control instanceof HTMLInputElement || control instanceof HTMLSelectElement)) return error;
  const label = control.labels?.[0]?.textContent?.trim();
  return label ? new UserError(label, error.got, error.wanted, error.remedy) : error;
}

/** Return the additional pictures for an inpainting model. Throws UserError if there is no photo. */
function readPhoto(): Pick<GenerateRequest, "image" | "maskImage"> {
  const { image } = photo;
  if (image === undefined) throw new UserError("photo", "none", "a picture of which a part is repainted", "open one");
  const maskImage = photo.maskImage();
  if (maskImage === undefined) messages.notice("Nothing is brushed over: nothing will be repainted.");
  for (const notice of photo.notices) messages.notice(notice);
  return { image, maskImage: maskImage ?? drawShape(EMPTY, board.size.width, board.size.height) };
}

function setRunning(isRunning: boolean): void {
  const [shown, hidden] = isRunning ? [cancelButton, generateButton] : [generateButton, cancelButton];
  const hadFocus = [hidden, cancelInSight].some((button) => document.activeElement === button);
  shown.hidden = false;
  hidden.hidden = true;
  cancelInSight.hidden = !isRunning;
  for (const button of cancelButtons) button.disabled = false;
  if (hadFocus) shown.focus({ preventScroll: true });
}

async function openPicture(file: File | undefined): Promise<void> {
  await withPicture(file, "control image", (source) =>
    board.show(openedPicture(source, wantsOutlines && !isOutline(source), board.size)),
  );
}

async function openPhoto(file: File | undefined): Promise<void> {
  await withPicture(file, "photo", (source) => photo.open(source));
}

async function withPicture(file: File | undefined, subject: string, use: (source: Image) => void): Promise<void> {
  if (file === undefined) return;
  messages.clear();
  try {
    use(await readPicture(file, subject));
  } catch (error) {
    messages.error(error);
  }
}

/** Open a picture that was dropped or pasted. For an inpainting model, the first one is the photo. */
function openPictureAt(target: EventTarget | null, file: File | undefined): void {
  const isPhoto = repaints && (photo.image === undefined || byId("repaint").contains(target as Node | null));
  void (isPhoto ? openPhoto(file) : openPicture(file));
}

function listen(): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running === undefined) void generate();
  });
  for (const button of cancelButtons) {
    button.addEventListener("click", () => {
      for (const either of cancelButtons) either.disabled = true;
      status.progress("Cancelling after this step…");
      running?.abort();
    });
  }
  byId("dice").addEventListener("click", () => {
    field("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  });
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=tool]")) {
    const take = () => {
      board.tool = radio.value as Tool;
      byId("gesture").textContent = HINTS[board.tool];
    };
    if (radio.checked) take(); // after a reload, a browser may restore the visitor's choice
    radio.addEventListener("change", take);
  }
  linkRepaintCard(byId("repaint"), photo, {
    onFile: (file) => void openPhoto(file),
    onOutline: (source) => board.show(openedPicture(source, true, board.size)),
    onChange: () => {
      lastChanged = photo;
    },
  });
  listenToBoard();
}

function listenToBoard(): void {
  const file = byId<HTMLInputElement>("file");
  const undoButton = byId<HTMLButtonElement>("undo");
  const showPictureTools = linkPictureTools(byId("picture-tools"), board);
  board.onChange = (shape) => {
    lastChanged = board;
    undoButton.disabled = !board.canUndo;
    showPictureTools(shape);
  };
  undoButton.addEventListener("click", () => board.undo());
  document.addEventListener("keydown", (event) => {
    const isText =
      event.target instanceof HTMLInputElement && !["radio", "checkbox", "range"].includes(event.target.type);
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || isText) return;
    event.preventDefault();
    (lastChanged.canUndo ? lastChanged : board).undo();
  });
  byId("clear").addEventListener("click", () => board.show(EMPTY));
  byId("save-outline").addEventListener("click", async () =>
    saveFile(await encodePng(board.controlImage()), "outline.png"),
  );
  byId("open").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    void openPicture(file.files?.[0]);
    file.value = ""; // the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    openPictureAt(event.target, event.dataTransfer?.files[0]);
  });
  document.addEventListener("paste", (event) => openPictureAt(event.target, event.clipboardData?.files[0]));
}

/** Apply `?memory=reduced` or `?memory=resident` of the page's address to the first load. */
function readAddress(): void {
  const choice = new URLSearchParams(location.search).get("memory");
  const select = field<HTMLSelectElement>("memory");
  if (choice === null || ![...select.options].some(({ value }) => value === choice)) return;
  select.value = choice;
  byId("memory-choice").hidden = false;
  session.useMemory(choice as MemoryChoice);
}

/** Register the service worker, if the browser offers one here. Without it the page works, but only with a network. */
async function keepForOfflineUse(): Promise<void> {
  try {
    await navigator.serviceWorker?.register("./offline.js");
  } catch (error) {
    console.warn(error); // in a sandboxed frame even the request throws
  }
}

addSamples(byId("samples"), board);
listen();
readAddress();
const palette = Object.values(palettes)[0];
if (palette !== undefined) linkSwatches(byId("colors"), byId<HTMLInputElement>("prompt"), palette);
if (import.meta.env.PROD) void keepForOfflineUse(); // the development server has no such file
byId("not-started").remove();
session.load().catch((error) => {
  if (running !== undefined) return; // the run that waits for the engine reports the error
  messages.error(error);
  status.result("The model is not loaded");
});
