/** Every text of the page, in English. Another language is another object of the type Texts. */

import type { DeviceReason, ErrorCode, NoticeTexts, Settings } from "../../worker";
import { controls } from "./en_controls";

/** A sentence for every error that the page tells. */
type ErrorTexts = Readonly<Record<Exclude<ErrorCode, "aborted" | "bug">, string>>;

export const en = {
  // The page.
  titleRing: "Draw a ring, name its colours",
  titleDraw: "Draw an outline, describe the picture",
  titleRepaint: "Brush over a part, describe what belongs there",
  introBefore: "A ControlNet, compiled to WebGPU,",
  introRing: "paints the disc",
  introDraw: "paints the picture",
  introRepaint: "repaints a part of your photo",
  introAfter: ". It runs in this tab: there is no server, and nothing that you draw or write leaves your machine.",
  introBeforeServed: "A ControlNet, compiled for the computer that serves this page,",
  introAfterServed: ". What you draw and write goes to that computer and no farther.",
  about: (model: string, size: string, dtype: string, device: string, reason: string) =>
    `Model ${model}, ${size}, ${dtype} on ${device} (${reason})`,
  aboutMemory: (bytes: string, isGpu: boolean) => `${bytes} of ${isGpu ? "GPU " : ""}memory`,
  aboutBundle: (hash: string) => `Bundle ${hash}`,

  // Messages.
  gotWanted: (got: string, wanted: string) => `got ${got}, wanted ${wanted}.`,
  pageFailed: "The page failed",
  pageFailedRemedy: "Press Generate to try again. If it fails again, please report this text.",
  boardEmpty: (unit?: string) =>
    unit
      ? `The drawing board of ${unit} is empty: nothing in the picture will follow it.`
      : "The drawing board is empty: the picture will follow only the prompt.",
  controlImageOf: (unit?: string) => (unit ? `control image of ${unit}` : "control image"),
  nothingBrushed: "Nothing is brushed over: nothing will be repainted.",
  photoWanted: (mode: "img2img" | "inpaint") => ({
    got: "none",
    wanted: mode === "inpaint" ? "a picture of which a part is repainted" : "a picture to start from",
    remedy: "open one",
  }),
  subjects: { "control image": "control image", photo: "photo" },
  noPictureFile: {
    got: "a file that is no picture, or broken",
    wanted: "a picture such as PNG or JPEG",
    remedy: "choose another file",
  },
  tooManyPixels: (width: number, height: number, most: number) => ({
    got: `${width}x${height} pixels (${Math.round((width * height) / 1e6)} megapixels)`,
    wanted: `${most} megapixels at most`,
    remedy: "make the picture smaller first: the model reads far fewer pixels",
  }),
  annotatorScript: "the annotators' script",
  annotatorScriptMissing: (script: string) => ({
    got: "no answer",
    wanted: `${script} from the page's host`,
    remedy: "check the connection and choose the annotator again",
  }),
  // The engine's own words are English. A language that has them has all: the compiler and texts.test.ts see to it.
  /** What an error of the engine means, by its code. */
  errorsByCode: undefined as ErrorTexts | undefined,
  /** What an error or a notice of the engine is about, apart from options. */
  errorSubjects: {} as Readonly<Record<string, string>>,
  /** Notices of the engine, by their codes. */
  notices: undefined as NoticeTexts | undefined,
  /** Why a device draws. */
  deviceReasons: undefined as Readonly<Record<DeviceReason, string>> | undefined,
  processor: undefined as ((threads: number) => string) | undefined,

  // The status line.
  starting: "Starting…",
  ready: "Ready",
  readyOnProcessor: (reason: string) => `Ready, on the processor: ${reason}`,
  readingPrompt: "Reading the prompt…",
  cancelling: "Cancelling after this step…",
  cancelled: "Cancelled",
  stopped: "Stopped",
  notLoaded: "The model is not loaded",
  done: (time: string, seed: number) => `Done in ${time} with seed ${seed}`,

  // The request.
  request: "Request",
  prompt: "Prompt",
  firstPrompt: "gold circle with navy background",
  promptPlaceholder: "What the picture shows",
  promptPlaceholderRepaint: "What belongs there",
  negativePrompt: "Negative prompt",
  generate: "Generate",
  cancel: "Cancel",
  circleColor: "Circle",
  backgroundColor: "Background",
  settings: "Settings",
  mode: "Begin with",
  modes: { txt2img: "Nothing", img2img: "A picture", inpaint: "A part of a picture" },
  modeHelp: {
    txt2img: "The whole picture is new.",
    img2img: "The picture changes as far as you let it.",
    inpaint: "Only what you brush over is drawn anew.",
  },

  // Options of the request, by the engine's names: the labels of their fields.
  options: {
    prompt: "Prompt",
    negativePrompt: "Negative prompt",
    numInferenceSteps: "Steps",
    guidanceScale: "Guidance scale",
    guidanceRescale: "Guidance rescale",
    sampler: "Sampler",
    seed: "Seed",
    strength: "Change",
    maskBlur: "Soft edge",
    paddingMaskCrop: "Space around the mask",
    maskedContent: "Starts from",
    controlnetConditioningScale: "Weight",
    controlGuidanceStart: "Counts from",
    controlGuidanceEnd: "Counts until",
    controlMode: "Which matters more",
    // Without a field: those of a restored picture.
    prompt2: "Second prompt",
    negativePrompt2: "Second negative prompt",
    promptSyntax: "Prompt syntax",
    clipSkip: "Clip skip",
    controlnets: "ControlNets",
    guessMode: "Guess mode",
    scheduleType: "Schedule type",
    eta: "Eta",
    timesteps: "Timesteps",
    sigmas: "Sigmas",
    height: "Height",
    width: "Width",
    originalSize: "Original size",
    cropsCoordsTopLeft: "Crop's top left corner",
    targetSize: "Target size",
    negativeOriginalSize: "Negative original size",
    negativeCropsCoordsTopLeft: "Negative crop's top left corner",
    negativeTargetSize: "Negative target size",
    hiresScale: "Hires scale",
    hiresStrength: "Hires strength",
    hiresSteps: "Hires steps",
    hiresUpscaler: "Hires upscaler",
    deepcacheInterval: "Deepcache interval",
    applyOverlay: "Apply overlay",
  } satisfies Record<keyof Settings, string>,
  stepsHelp: "More steps: finer and slower",
  guidanceHelp: "Weight of the prompt",
  rescaleHelp: "Against harsh contrasts, from 0 to 1",
  samplerHelp: "The method that removes noise",
  seedHelp: "The same seed gives the same picture",
  newSeed: "New",
  newSeedHelp: "Choose a random seed",
  memory: "GPU memory",
  memoryHelp: "Takes effect with the next picture",
  memoryAuto: "Automatic",
  memoryResident: (bytes: string) => `Keep the model there: ${bytes}`,
  memoryReduced: (bytes: string) => `Save memory: ${bytes}, slower`,

  // The picture.
  picture: "Picture",
  noPicture: "No picture yet",
  preview: "Preview",
  withoutPrompt: "Picture without a prompt",
  placeholder: "Your picture appears here",
  download: "Download PNG",
  repaintIt: "Repaint it",
  repaintItHelp: "Use this picture as the photo",

  // The photo of img2img and inpainting.
  photo: "Photo",
  photoPlaceholder: "Open a photo, or drop one here",
  photoPlaceholderMask: "Open a photo, then brush over the part to repaint",
  photoLabel: (isMasked: boolean): string => (isMasked ? "Picture to repaint" : "Picture to start from"),
  photoNone: "none",
  photoSize: (width: number, height: number) => `${width} by ${height}`,
  photoBrushed: "brushed over",
  photoNotBrushed: "nothing brushed over",
  brush: "Brush",
  brushHint: "Brush over what is to be drawn anew.",
  rubOut: "Rub out",
  brushSize: "Size",
  openPhoto: "Open photo…",
  traceEdges: "Trace edges",
  traceEdgesHelp: "Put the photo's edges on the drawing board",
  maskAll: "All",
  maskAllHelp: "Repaint the whole photo",
  maskNone: "Clear",
  maskNoneHelp: "Repaint nothing",
  clearBrush: "Clear the brush",
  undoBrush: "Undo the brush",
  redoBrush: "Redo the brush",
  onlyMasked: "Only the masked part",
  onlyMaskedHelp: "Draws the part around the mask at the model's full size, and pastes it back: finer details.",
  maskedContents: {
    original: "The photo",
    fill: "The colours around it",
    "latent noise": "Noise",
    "latent nothing": "Nothing",
  },

  // The camera.
  camera: "Camera",
  takePhoto: "Camera…",
  cameraView: "What the camera sees",
  cameraWaiting: "Waiting for the camera. The browser may ask whether this page may use it.",
  takeStill: "Take the picture",
  cameraErrors: {
    refused: {
      got: "no permission",
      wanted: "what the camera sees",
      remedy: "allow the camera beside the browser's address, then try again, or open a picture",
    },
    missing: { got: "no camera", wanted: "one on this machine", remedy: "connect one, or open a picture" },
    busy: {
      got: "a camera that gives no picture",
      wanted: "one that nothing else uses",
      remedy: "close other programs that use it, check its cable, and try again",
    },
    insecure: {
      got: "a page that may not ask for it",
      wanted: "https or localhost",
      remedy: "open the page over https, or open a picture",
    },
  },

  ...controls,

  // The language itself.
  languageName: "English",
  languageLabel: "Language",
  locale: "en",

  // Models.
  model: "Model",
  models: "Models",
  close: "Close",
  place: "Draw",
  places: { browser: "In this browser", computer: "On this computer" },
  placeHelp: {
    browser: "Nothing leaves this tab.",
    computer: "The service that brought this page draws: also models that are too large for a browser.",
  },
  modelOfThisSite: "The model of this site",
  useModel: "Open",
  modelInUse: "Open now",
  removeModel: "Remove from this machine",
  modelHere: (bytes: string) => `${bytes} on this machine`,
  modelToFetch: (bytes: string) => `${bytes} to download`,
  modelMemory: (bytes: string) => `needs ${bytes} of GPU memory`,
  modelTime: (seconds: number, steps: number) => `about ${seconds} s for ${steps} steps here`,
  modelNeeds: (features: string) => `This GPU lacks ${features}.`,
  ownModel: "Your own model",
  ownModelHelp: "The address of a bundle on this site, or a bundle's folder: choose it, or drop it here.",
  ownModelAddress: "Address of a bundle",
  add: "Add",
  chooseFolder: "Choose a folder…",
  readingFolder: (bytes: string) => `Reading: ${bytes}`,
  addedWhileDrawing: (name: string) =>
    `The model ${name} is in the list now. A picture is being drawn: open the model when the picture is finished.`,

  // Results.
  gallery: "Pictures so far",
  room: (usage: string, quota: string) => `${usage} of ${quota} in use`,
  galleryTrouble: {
    forbidden: "This browser keeps no pictures here, as in a private window: download those that you want to keep.",
    full: "The browser's storage is full: the newest pictures are gone after a reload. Remove some, or download them.",
  },
  facts: (model: string, steps: number, guidance: string, seed: number) =>
    `${model} · ${steps} ${steps === 1 ? "step" : "steps"} · guidance ${guidance} · seed ${seed}`,
  useAgain: "Use again",
  varySeed: "Vary the seed",
  sendTo: { img2img: "Change it", inpaint: "Repaint a part" },
  sendToControl: (unit?: string) => (unit ? `To the control: ${unit}` : "To the control"),
  compare: "Compare",
  compareBefore: "Before",
  compareAfter: "After",
  compareLine: "Line between the pictures",
  removePicture: "Remove",
  count: "Pictures",
  countHelp: "Of consecutive seeds",
  pictureOf: (index: number, count: number) => `Picture ${index} of ${count}: `,
  step: (index: number, count: number) => `Step ${index} of ${count}`,
  timeLeft: (seconds: number) => `, about ${seconds} s left`,
  loading: "Loading the model…",
  loadingParts: (parts: string) => `Loading the model: ${parts}`,
  loadingBytes: (done: string, total: string) => `${done} of ${total} MB`,
  loadingKernels: (done: number, total: number) => `${done} of ${total} GPU kernels`,
  share: "Copy link",
  shareHelp: "A link with this model and these settings. They stand after its # and are sent to no server.",
  copied: "Copied",
  linkInAddress: "The link is in the address bar.",
  linkedModelMissing: (name: string, present: string) =>
    `The link is of the model ${name}, which this site has not: ${present} draws another picture.`,
  linkWhileDrawing: "A picture is being drawn: open the link again when it is finished.",

  // Restored settings.
  settingsRestored: "The settings of the picture are restored.",
  samplerMissing: (name: string) => `This model has no sampler ${name}.`,
  sizeMissing: (size: string) => `This model draws no pictures of ${size}.`,
  optionsMissing: (names: string) => `This model does not offer: ${names}.`,
  controlnetMissing: (name: string) => `This model has no ControlNet ${name}.`,
  otherModel: (name: string) => `The picture is of the model ${name}: this one draws another.`,
  alsoFromPicture: "Also from the picture",
  forget: "Forget",

  // Presets.
  presets: "Quality",
  presetNames: { quick: "Quick", standard: "Standard", fine: "Fine" },
  presetHelp: {
    quick: "Half the steps that the model recommends",
    standard: "What the model recommends",
    fine: "Twice the steps that the model recommends",
  },
  presetName: "Name of the preset",
  savePreset: "Save as preset…",
  removePreset: (name: string) => `Remove the preset ${name}`,

  // A new version of the page.
  newVersion: "A new version of this page is here.",
  reload: "Open it",
};

/** The texts of one language. */
export type Texts = typeof en;
