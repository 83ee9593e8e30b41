import { readdirSync, readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { type NoticeCode, type NoticeValues, noticeOf } from "../../../src/engine/notices";
import { language, numberText } from "../../../src/page/text";
import { de } from "../../../src/page/text/de";
import { en } from "../../../src/page/text/en";
import { noticeText, subjectText } from "../../../src/page/text/engine_text";

const NOTICES: { readonly [Code in NoticeCode]: NoticeValues[Code] } = {
  "no-room": { roomBytes: 2.1e9, neededBytes: 5.3e9 },
  "gpu-looks-small": { estimatedBytes: 2.1e9, neededBytes: 5.3e9 },
  "memory-reduced": {},
  "gpu-lost": {},
  "drawn-again": { spoilt: "one-colour" },
  "prompt-cut": { subject: "subject", tokens: 77, cutText: "and the end" },
  "no-effect": { subject: "subject", why: "guidance-off" },
  transparency: { subject: "subject" },
  scaled: { subject: "subject", from: "64x48", to: "32x32", how: "cropped" },
  "part-enlarged": { subject: "subject", part: "64x48", drawn: "32x32" },
  "unknown-option": { name: "sharpness" },
  "unknown-value": { subject: "subject", value: "euler z" },
  "unusable-value": { subject: "subject", value: "-1" },
  "unknown-upscaler": { value: "Lanczos" },
};

afterEach(() => {
  language.value = "en";
});

/** Texts that are the same in both languages. */
const SAME = [
  ...["firstPrompt", "options.sampler", "options.controlnets", "options.eta", "controlnet", "annotator", "tools.ring"],
  "parameters.sigma",
];
/** What only a script that calls the engine can get wrong. */
const OF_SCRIPTS = ["bundleUrl", "device", "latents of the caller", "negative prompt embeds", "num images per prompt"];

function* texts(value: unknown, path = ""): Generator<[string, string]> {
  if (typeof value === "string") yield [path, value];
  else if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) yield* texts(inner, path ? `${path}.${key}` : key);
  }
}

test("every text is translated", () => {
  const german = new Map(texts(de));
  const same = [...texts(en)].filter(([path, text]) => german.get(path) === text).map(([path]) => path);
  expect(same.sort()).toEqual([...SAME].sort());
});

test("sentences with numbers name all of them in both languages", () => {
  for (const { facts, pictureOf, room } of [en, de]) {
    expect(facts("m", 20, "7.5", 3)).toMatch(/m.*20 (steps|Schritte) .*7\.5.*3/);
    expect(facts("m", 1, "7.5", 3)).toMatch(/m.*1 (step|Schritt) .*7\.5.*3/);
    expect(pictureOf(2, 4)).toMatch(/2.*4/);
    expect(room("1 MB", "2 GB")).toMatch(/1 MB.*2 GB/);
  }
});

test.each(Object.keys(NOTICES) as NoticeCode[])(
  "a notice %s has a sentence in both languages, with its values",
  (code) => {
    const values = NOTICES[code];
    const notice = noticeOf(code, values);
    const [english, german] = ["en", "de"].map((one) => {
      language.value = one;
      return noticeText(notice);
    });
    expect(german).not.toBe(english);
    const words = Object.entries(values).filter(([name]) => !["spoilt", "why", "how"].includes(name));
    for (const [name, value] of words) {
      const shown = name.endsWith("Bytes") ? `${(value as number) / 1e9} GB` : String(value);
      expect(english).toContain(shown);
      expect(german).toContain(name.endsWith("Bytes") ? shown.replace(".", ",") : shown);
    }
  },
);

test("the words within a notice are in German for each of their values", () => {
  language.value = "de";
  const scalings = (["covers", "cropped", "fits", "stretched"] as const).map((how) =>
    noticeText(noticeOf("scaled", { subject: "image", from: "64x48", to: "32x32", how })),
  );
  expect(new Set(scalings).size).toBe(4);
  expect(scalings[3]).toBe("Foto: 64x48 wurde auf 32x32 gestreckt.");
  expect(noticeText(noticeOf("drawn-again", { spoilt: "not-finite" }))).toContain("Zahlen");
});

test("numbers have the decimal point of the language, and nothing between thousands", () => {
  const texts = ["en", "de"].map((code) => {
    language.value = code;
    return [0.12, 7.5, 1024, 3].map(numberText).join(" ");
  });
  expect(texts).toEqual(["0.12 7.5 1024 3", "0,12 7,5 1024 3"]);
});

test("whatever an error of the engine is about has a name in German, unless only a script can cause it", () => {
  const folders = ["engine", "engine/samplers", "worker", "remote"].map(
    (name) => `${import.meta.dirname}/../../../src/${name}`,
  );
  const sources = folders.flatMap((folder) =>
    readdirSync(folder).flatMap((name) => (name.endsWith(".ts") ? [readFileSync(`${folder}/${name}`, "utf8")] : [])),
  );
  const subjects = sources.flatMap((source) =>
    [...source.matchAll(/(?:(?:UserError|checkOneOf|super)\(\s*|(?:IMAGE|SUBJECT|STEPS) = )"([^"]+)"/g)].map(
      ([, subject]) => subject,
    ),
  );
  expect(subjects).toEqual(
    expect.arrayContaining(["GPU device", "GPU memory", "mask image", "service", "the engine's script"]),
  );
  language.value = "de";
  const nameless = subjects.filter((subject) => subjectText(subject) === undefined && !OF_SCRIPTS.includes(subject));
  expect(nameless).toEqual([]);
});
