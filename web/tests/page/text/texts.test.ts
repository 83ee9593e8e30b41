import { expect, test } from "vitest";
import { de } from "../../../src/page/text/de";
import { en } from "../../../src/page/text/en";

/** Texts that are the same in both languages. */
const SAME = ["firstPrompt", "options.sampler", "controlnet", "annotator", "tools.ring", "parameters.sigma"];

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
    expect(facts("m", 20, "7.5", 3)).toMatch(/m.*20.*7\.5.*3/);
    expect(pictureOf(2, 4)).toMatch(/2.*4/);
    expect(room("1 MB", "2 GB")).toMatch(/1 MB.*2 GB/);
  }
});
