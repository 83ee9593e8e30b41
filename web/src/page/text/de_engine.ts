/** What the engine says, in German: its errors, its notices, and why a device draws. */

import { gigabytes as gigabytesIn } from "../../worker";
import type { Texts } from "./en";

const gigabytes = (bytes: number) => gigabytesIn(bytes, "de");

export const engine: Pick<Texts, "errorSubjects" | "notices" | "deviceReasons" | "processor" | "errorsByCode"> = {
  errorSubjects: {
    WebGPU: "WebGPU",
    WebAssembly: "WebAssembly",
    "WebAssembly's memory": "Speicher von WebAssembly",
    "GPU memory": "Grafikspeicher",
    "GPU device": "Grafikkarte",
    bundle: "Bundle",
    "own bundle": "Ihr eigenes Bundle",
    folder: "Ordner",
    storage: "Speicher des Browsers",
    "the engine's script": "Das Skript, das malt",
    service: "Dienst",
    model: "Modell",
    picture: "Bild",
    image: "Foto",
    "mask image": "Maske",
    "control guidance": "Geltung der Steuerung",
    "timesteps and sigmas": "Zeitschritte und Rauschstärken",
    "latent upscale mode": "Verfahren beim Vergrößern",
  },
  notices: {
    "no-room": ({ roomBytes, neededBytes }) =>
      `Der Browser hat für diese Website noch ${gigabytes(roomBytes)} Platz, das Modell braucht ${gigabytes(neededBytes)}: Der nächste Besuch lädt es noch einmal. Schaffen Sie Platz auf dem Datenträger, oder verlassen Sie das private Fenster.`,
    "gpu-looks-small": ({ estimatedBytes, neededBytes }) =>
      `Grafikspeicher: dem Anschein nach etwa ${gigabytes(estimatedBytes)}; das Modell braucht ${gigabytes(neededBytes)}. Es wird trotzdem geladen und versucht. Scheitert das Malen, nehmen Sie ein Modell mit kleineren Gewichten.`,
    "memory-reduced": () =>
      "Der Grafikspeicher war voll: Das Modell wird noch einmal geladen, jeweils nur ein Teil seiner Gewichte.",
    "gpu-lost": () =>
      "Die Grafikkarte ging verloren: Das Modell wird noch einmal geladen, und das Bild geht nach seinem letzten Schritt weiter.",
    "drawn-again": ({ spoilt }) => {
      const made = spoilt === "one-colour" ? "ein Bild aus nur einer Farbe" : "Zahlen, die keine sind";
      return `Diese Grafikkarte hat in float16 ${made} errechnet: Es wird in float32 noch einmal gemalt, was länger dauert.`;
    },
    "prompt-cut": ({ subject, tokens, cutText }) =>
      `${subject}: länger als ${tokens} Token, dieses Ende fiel weg: „${cutText}“`,
    "no-effect": ({ subject, why }) => {
      const reasons = {
        "guidance-off": "das Prompt-Gewicht ist höchstens 1",
        "guidance-embedded": "dieses Modell liest nichts davon",
        sampler: "nur die Sampler DDIM und TCD lesen es",
      };
      return `${subject}: ohne Wirkung, ${reasons[why]}`;
    },
    transparency: ({ subject }) => `${subject}: Was durchsichtig war, wurde auf Schwarz gesetzt.`,
    scaled: ({ subject, from, to, how }) => {
      const done = {
        covers: `auf ${to} gebracht`,
        cropped: `auf ${to} gebracht und ringsum beschnitten`,
        fits: `in ${to} eingepasst, mit Schwarz daneben`,
        stretched: `auf ${to} gestreckt`,
      };
      return `${subject}: ${from} wurde ${done[how]}.`;
    },
    "part-enlarged": ({ subject, part, drawn }) =>
      `${subject}: Die Gegend um die Maske, ${part}, wird in ${drawn} gemalt und vergrößert.`,
    "unknown-option": ({ name }) => `${name}: hier unbekannt und darum weggelassen`,
    "unknown-value": ({ subject, value }) => `${subject} ${value}: hier unbekannt und darum weggelassen`,
    "unusable-value": ({ subject, value }) => `${subject} ${value}: nicht brauchbar und darum weggelassen`,
    "unknown-upscaler": ({ value }) =>
      `Verfahren beim Vergrößern ${value}: hier unbekannt, darum wird nicht vergrößert`,
  },
  deviceReasons: {
    asked: "wie gewünscht",
    gpu: "eine Grafikkarte, die das Modell rechnen kann",
    "no-webgpu": "kein WebGPU in diesem Browser",
    "no-adapter": "keine Grafikkarte, die der Browser benutzen darf",
    imitated: "keine Grafikkarte: Der Browser ahmt eine nach, langsam",
    "gpu-lacks": "der Grafikkarte fehlt etwas, das dieses Modell braucht",
  },
  processor: (threads) => `dem Prozessor, mit ${threads} ${threads === 1 ? "Thread" : "Threads"}`,
  errorsByCode: {
    "bad-request": "Diese Angabe passt nicht. Ändern Sie sie, und malen Sie noch einmal.",
    "bad-bundle":
      "Unter dieser Adresse liegt kein Modell, das diese Seite lesen kann. Prüfen Sie die Adresse, oder laden Sie die Seite neu.",
    "bundle-changed":
      "Eine Datei des Modells ist nicht die, die sein Verzeichnis nennt: Sie ist beschädigt oder neuer. Laden Sie die Seite neu.",
    "no-connection": "Der Server antwortet nicht. Prüfen Sie die Verbindung, und versuchen Sie es noch einmal.",
    "insecure-page": "Die Seite kam über einfaches http. Öffnen Sie sie über https oder von localhost.",
    "no-webgpu":
      "Dieser Browser hat kein WebGPU. Nehmen Sie einen neueren, oder schalten Sie die Hardwarebeschleunigung ein.",
    "no-adapter": "Der Browser findet keine Grafikkarte für WebGPU. Schalten Sie die Hardwarebeschleunigung ein.",
    "gpu-lacks": "Der Grafikkarte fehlt etwas, das dieses Modell braucht. Wählen Sie ein anderes Modell oder Gerät.",
    "no-simd":
      "Dieser Browser kann auf dem Prozessor nicht rechnen, wie es das Modell braucht. Nehmen Sie einen neueren.",
    "too-large": "Das Modell ist zu groß für den Prozessor, und es gibt keine Grafikkarte. Wählen Sie ein kleineres.",
    "gpu-memory-full":
      "Der Grafikspeicher reicht nicht. Schließen Sie andere Tabs und Programme, und versuchen Sie es noch einmal.",
    "device-lost":
      "Die Grafikkarte ging zweimal in einer Minute verloren. Warten Sie etwas, und malen Sie noch einmal.",
    "not-finite": "Das Modell hat sich verrechnet. Ändern Sie Beschreibung oder Startwert, und malen Sie noch einmal.",
    "no-worker":
      "Das Skript, das malt, hat nicht begonnen. Prüfen Sie die Verbindung, und versuchen Sie es noch einmal.",
  },
};
