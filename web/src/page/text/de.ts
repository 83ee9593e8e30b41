/** Every text of the page, in German. */

import { controls } from "./de_controls";
import { engine } from "./de_engine";
import type { Texts } from "./en";

export const de: Texts = {
  // The page.
  titleRing: "Ring zeichnen, Farben nennen",
  titleDraw: "Umriss zeichnen, Bild beschreiben",
  titleRepaint: "Stelle übermalen, sagen, was dorthin gehört",
  introBefore: "Ein ControlNet, für WebGPU übersetzt,",
  introRing: "malt die Scheibe",
  introDraw: "malt das Bild",
  introRepaint: "malt einen Teil Ihres Fotos neu",
  introAfter:
    ". Es läuft in diesem Tab: Es gibt keinen Server, und nichts, was Sie zeichnen oder schreiben, verlässt Ihr Gerät.",
  introBeforeServed: "Ein ControlNet, übersetzt für den Rechner, von dem diese Seite kommt,",
  introAfterServed: ". Was Sie zeichnen und schreiben, geht an diesen Rechner und nicht weiter.",
  about: (model, size, dtype, device, reason) => `Modell ${model}, ${size}, ${dtype} auf ${device} (${reason})`,
  aboutMemory: (bytes, isGpu) => `${bytes} ${isGpu ? "Grafikspeicher" : "Speicher"}`,
  aboutBundle: (hash) => `Bundle ${hash}`,

  // Messages.
  gotWanted: (got, wanted) => `gefunden: ${got}; gebraucht: ${wanted}.`,
  pageFailed: "Auf der Seite ist ein Fehler aufgetreten",
  pageFailedRemedy: "Drücken Sie noch einmal auf Malen. Scheitert es wieder, melden Sie bitte diesen Text.",
  boardEmpty: (unit) =>
    unit
      ? `Die Zeichenfläche „${unit}“ ist leer: Nichts im Bild folgt ihr.`
      : "Die Zeichenfläche ist leer: Das Bild folgt nur der Beschreibung.",
  controlImageOf: (unit) => (unit ? `Steuerbild „${unit}“` : "Steuerbild"),
  nothingBrushed: "Nichts ist übermalt: Nichts wird neu gemalt.",
  photoWanted: (mode) => ({
    got: "keines",
    wanted: mode === "inpaint" ? "ein Bild, von dem ein Teil neu gemalt wird" : "ein Bild für den Anfang",
    remedy: "öffnen Sie eines",
  }),
  subjects: { "control image": "Steuerbild", photo: "Foto" },
  noPictureFile: {
    got: "eine Datei, die kein Bild oder beschädigt ist",
    wanted: "ein Bild, etwa PNG oder JPEG",
    remedy: "wählen Sie eine andere Datei",
  },
  tooManyPixels: (width, height, most) => ({
    got: `${width}x${height} Pixel (${Math.round((width * height) / 1e6)} Megapixel)`,
    wanted: `höchstens ${most} Megapixel`,
    remedy: "verkleinern Sie das Bild zuerst: Das Modell liest viel weniger Pixel",
  }),
  annotatorScript: "das Skript der Annotatoren",
  annotatorScriptMissing: (script) => ({
    got: "keine Antwort",
    wanted: `${script} vom Server dieser Seite`,
    remedy: "prüfen Sie die Verbindung, und wählen Sie den Annotator noch einmal",
  }),
  ...engine,

  // The status line.
  starting: "Es beginnt…",
  ready: "Bereit",
  readyOnProcessor: (reason) => `Bereit, auf dem Prozessor: ${reason}`,
  readingPrompt: "Die Beschreibung wird gelesen…",
  cancelling: "Abbruch nach diesem Schritt…",
  cancelled: "Abgebrochen",
  stopped: "Angehalten",
  notLoaded: "Das Modell ist nicht geladen",
  done: (time, seed) => `Fertig in ${time}, Startwert ${seed}`,

  // The request.
  request: "Auftrag",
  prompt: "Beschreibung",
  firstPrompt: "gold circle with navy background",
  promptPlaceholder: "Was das Bild zeigt",
  promptPlaceholderRepaint: "Was dorthin gehört",
  negativePrompt: "Was nicht ins Bild soll",
  generate: "Malen",
  cancel: "Abbrechen",
  circleColor: "Kreis",
  backgroundColor: "Hintergrund",
  settings: "Einstellungen",
  mode: "Beginnt mit",
  modes: { txt2img: "Nichts", img2img: "Einem Bild", inpaint: "Einem Bildteil" },
  modeHelp: {
    txt2img: "Das ganze Bild ist neu.",
    img2img: "Das Bild ändert sich so weit, wie Sie es lassen.",
    inpaint: "Nur was Sie übermalen, entsteht neu.",
  },

  // Options of the request, by the engine's names: the labels of their fields.
  options: {
    prompt: "Beschreibung",
    negativePrompt: "Was nicht ins Bild soll",
    numInferenceSteps: "Schritte",
    guidanceScale: "Prompt-Gewicht",
    guidanceRescale: "Kontrast begrenzen",
    sampler: "Sampler",
    seed: "Startwert",
    strength: "Änderung",
    maskBlur: "Weicher Rand",
    paddingMaskCrop: "Raum um die Maske",
    maskedContent: "Beginnt mit",
    controlnetConditioningScale: "Gewicht",
    controlGuidanceStart: "Gilt ab",
    controlGuidanceEnd: "Gilt bis",
    controlMode: "Was mehr zählt",
    prompt2: "Zweite Beschreibung",
    negativePrompt2: "Was nicht ins Bild soll, zweiter Text",
    promptSyntax: "Schreibweise der Beschreibung",
    clipSkip: "Ausgelassene CLIP-Schichten",
    controlnets: "ControlNets",
    guessMode: "Ratemodus",
    scheduleType: "Zeitplan",
    eta: "Eta",
    timesteps: "Zeitschritte",
    sigmas: "Rauschstärken",
    height: "Höhe",
    width: "Breite",
    originalSize: "Ursprüngliche Größe",
    cropsCoordsTopLeft: "Linke obere Ecke des Ausschnitts",
    targetSize: "Zielgröße",
    negativeOriginalSize: "Ursprüngliche Größe, negativ",
    negativeCropsCoordsTopLeft: "Linke obere Ecke des Ausschnitts, negativ",
    negativeTargetSize: "Zielgröße, negativ",
    hiresScale: "Vergrößerung",
    hiresStrength: "Änderung beim Vergrößern",
    hiresSteps: "Schritte beim Vergrößern",
    hiresUpscaler: "Verfahren beim Vergrößern",
    deepcacheInterval: "Abstand ganzer Schritte",
    applyOverlay: "Foto wieder einsetzen",
  },
  stepsHelp: "Mehr Schritte: feiner und langsamer",
  guidanceHelp: "Wie sehr die Beschreibung zählt",
  rescaleHelp: "Gegen zu harte Kontraste, von 0 bis 1",
  samplerHelp: "Das Verfahren, das Rauschen entfernt",
  seedHelp: "Gleicher Startwert, gleiches Bild",
  newSeed: "Neu",
  newSeedHelp: "Einen zufälligen Startwert wählen",
  memory: "Grafikspeicher",
  memoryHelp: "Gilt ab dem nächsten Bild",
  memoryAuto: "Von selbst",
  memoryResident: (bytes) => `Das Modell dort lassen: ${bytes}`,
  memoryReduced: (bytes) => `Speicher sparen: ${bytes}, langsamer`,

  // The picture.
  picture: "Bild",
  noPicture: "Noch kein Bild",
  preview: "Vorschau",
  withoutPrompt: "Bild ohne Beschreibung",
  placeholder: "Hier erscheint Ihr Bild",
  download: "PNG speichern",
  repaintIt: "Neu malen",
  repaintItHelp: "Dieses Bild als Foto nehmen",

  // The photo of img2img and inpainting.
  photo: "Foto",
  photoPlaceholder: "Öffnen Sie ein Foto, oder ziehen Sie eines hierher",
  photoPlaceholderMask: "Öffnen Sie ein Foto, und übermalen Sie die Stelle, die neu werden soll",
  photoLabel: (isMasked) => (isMasked ? "Bild, das neu gemalt wird" : "Bild für den Anfang"),
  photoNone: "keines",
  photoSize: (width, height) => `${width} mal ${height}`,
  photoBrushed: "übermalt",
  photoNotBrushed: "nichts übermalt",
  brush: "Pinsel",
  brushHint: "Übermalen Sie, was neu werden soll.",
  rubOut: "Wegnehmen",
  brushSize: "Größe",
  openPhoto: "Foto öffnen…",
  traceEdges: "Kanten übernehmen",
  traceEdgesHelp: "Die Kanten des Fotos auf die Zeichenfläche legen",
  maskAll: "Alles",
  maskAllHelp: "Das ganze Foto neu malen",
  maskNone: "Leeren",
  maskNoneHelp: "Nichts neu malen",
  clearBrush: "Übermaltes leeren",
  undoBrush: "Pinselstrich zurücknehmen",
  redoBrush: "Pinselstrich wiederholen",
  onlyMasked: "Nur den übermalten Teil",
  onlyMaskedHelp:
    "Malt die Gegend um die Maske in der vollen Größe des Modells und setzt sie wieder ein: feinere Einzelheiten.",
  maskedContents: {
    original: "Dem Foto",
    fill: "Den Farben ringsum",
    "latent noise": "Rauschen",
    "latent nothing": "Nichts",
  },

  // The camera.
  camera: "Kamera",
  takePhoto: "Kamera…",
  cameraView: "Was die Kamera sieht",
  cameraWaiting: "Die Kamera wird geöffnet. Vielleicht fragt der Browser, ob diese Seite sie benutzen darf.",
  takeStill: "Aufnehmen",
  cameraErrors: {
    refused: {
      got: "keine Erlaubnis",
      wanted: "was die Kamera sieht",
      remedy:
        "erlauben Sie die Kamera neben der Adresse im Browser und versuchen Sie es noch einmal, oder öffnen Sie ein Bild",
    },
    missing: {
      got: "keine Kamera",
      wanted: "eine an diesem Gerät",
      remedy: "schließen Sie eine an, oder öffnen Sie ein Bild",
    },
    busy: {
      got: "eine Kamera, die kein Bild gibt",
      wanted: "eine, die nichts anderes benutzt",
      remedy:
        "schließen Sie andere Programme, die sie benutzen, prüfen Sie das Kabel, und versuchen Sie es noch einmal",
    },
    insecure: {
      got: "eine Seite, die nicht danach fragen darf",
      wanted: "https oder localhost",
      remedy: "öffnen Sie die Seite über https, oder öffnen Sie ein Bild",
    },
  },

  ...controls,

  // The language itself.
  languageName: "Deutsch",
  languageLabel: "Sprache",
  locale: "de",

  // Models.
  model: "Modell",
  models: "Modelle",
  close: "Schließen",
  place: "Malen",
  places: { browser: "In diesem Browser", computer: "Auf diesem Rechner" },
  placeHelp: {
    browser: "Nichts verlässt diesen Tab.",
    computer: "Der Dienst, von dem diese Seite kommt, malt: auch Modelle, die für einen Browser zu groß sind.",
  },
  modelOfThisSite: "Das Modell dieser Seite",
  useModel: "Öffnen",
  modelInUse: "Geöffnet",
  removeModel: "Von diesem Gerät entfernen",
  modelHere: (bytes) => `${bytes} auf diesem Gerät`,
  modelToFetch: (bytes) => `${bytes} zu laden`,
  modelMemory: (bytes) => `braucht ${bytes} Grafikspeicher`,
  modelTime: (seconds, steps) => `hier etwa ${seconds} s für ${steps} Schritte`,
  modelNeeds: (features) => `Dieser Grafikkarte fehlt ${features}.`,
  ownModel: "Ihr eigenes Modell",
  ownModelHelp:
    "Die Adresse eines Bundles auf dieser Website, oder der Ordner eines Bundles: Wählen Sie ihn, oder ziehen Sie ihn hierher.",
  ownModelAddress: "Adresse eines Bundles",
  add: "Hinzufügen",
  chooseFolder: "Ordner wählen…",
  readingFolder: (bytes) => `Wird gelesen: ${bytes}`,
  addedWhileDrawing: (name) =>
    `Das Modell ${name} steht jetzt in der Liste. Gerade wird gemalt: Öffnen Sie es, wenn das Bild fertig ist.`,

  // Results.
  gallery: "Bisherige Bilder",
  room: (usage, quota) => `${usage} von ${quota} belegt`,
  galleryTrouble: {
    forbidden:
      "Dieser Browser behält hier keine Bilder, etwa in einem privaten Fenster: Speichern Sie, was bleiben soll.",
    full: "Der Speicher des Browsers ist voll: Die neuesten Bilder sind nach dem Neuladen weg. Entfernen Sie einige, oder speichern Sie sie.",
  },
  facts: (model, steps, guidance, seed) =>
    `${model} · ${steps} ${steps === 1 ? "Schritt" : "Schritte"} · Prompt-Gewicht ${guidance} · Startwert ${seed}`,
  useAgain: "Wieder verwenden",
  varySeed: "Anderer Startwert",
  sendTo: { img2img: "Verändern", inpaint: "Teil neu malen" },
  sendToControl: (unit) => (unit ? `Zur Steuerung: ${unit}` : "Zur Steuerung"),
  compare: "Vergleichen",
  compareBefore: "Vorher",
  compareAfter: "Nachher",
  compareLine: "Linie zwischen den Bildern",
  removePicture: "Entfernen",
  count: "Bilder",
  countHelp: "Mit aufeinander folgenden Startwerten",
  pictureOf: (index, count) => `Bild ${index} von ${count}: `,
  step: (index, count) => `Schritt ${index} von ${count}`,
  timeLeft: (seconds) => `, noch etwa ${seconds} s`,
  loading: "Das Modell wird geladen…",
  loadingParts: (parts) => `Das Modell wird geladen: ${parts}`,
  loadingBytes: (done, total) => `${done} von ${total} MB`,
  loadingKernels: (done, total) => `${done} von ${total} GPU-Kernels`,
  share: "Link kopieren",
  shareHelp: "Ein Link mit diesem Modell und diesen Einstellungen. Sie stehen hinter dem # und gehen an keinen Server.",
  copied: "Kopiert",
  linkInAddress: "Der Link steht in der Adresszeile.",
  linkedModelMissing: (name, present) =>
    `Der Link ist vom Modell ${name}, das es hier nicht gibt: ${present} malt ein anderes Bild.`,
  linkWhileDrawing: "Gerade wird gemalt: Öffnen Sie den Link noch einmal, wenn das Bild fertig ist.",

  // Restored settings.
  settingsRestored: "Die Einstellungen des Bildes sind wiederhergestellt.",
  samplerMissing: (name) => `Dieses Modell hat keinen Sampler ${name}.`,
  sizeMissing: (size) => `Dieses Modell malt keine Bilder von ${size}.`,
  optionsMissing: (names) => `Dieses Modell bietet nicht: ${names}.`,
  controlnetMissing: (name) => `Dieses Modell hat kein ControlNet ${name}.`,
  otherModel: (name) => `Das Bild ist vom Modell ${name}: Dieses malt ein anderes.`,
  alsoFromPicture: "Ebenfalls vom Bild",
  forget: "Vergessen",

  // Presets.
  presets: "Güte",
  presetNames: { quick: "Schnell", standard: "Normal", fine: "Fein" },
  presetHelp: {
    quick: "Die Hälfte der empfohlenen Schritte",
    standard: "Was das Modell empfiehlt",
    fine: "Das Doppelte der empfohlenen Schritte",
  },
  presetName: "Name der Voreinstellung",
  savePreset: "Voreinstellung sichern…",
  removePreset: (name) => `Die Voreinstellung ${name} entfernen`,

  // A new version of the page.
  newVersion: "Es gibt eine neue Fassung dieser Seite.",
  reload: "Öffnen",
};
