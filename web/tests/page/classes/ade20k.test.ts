import { expect, test } from "vitest";
import { ADE20K, classOf, findClasses } from "../../../src/page/classes/ade20k";

test("the classes have the colours that ControlNet's segmentation models know", () => {
  expect(ADE20K.length).toBe(150);
  expect([ADE20K[0], ADE20K[2], ADE20K[149]].map(({ names, color }) => [names.en, ...color])).toEqual([
    ["wall", 120, 120, 120],
    ["sky", 6, 230, 230],
    ["flag", 92, 0, 255],
  ]);
});

test("no two classes have one name, in either language, and two share a colour", () => {
  for (const language of ["en", "de"]) expect(new Set(ADE20K.map(({ names }) => names[language])).size).toBe(150);
  expect(new Set(ADE20K.map(({ color }) => color.join())).size).toBe(149);
  expect(classOf("road").color).toEqual(classOf("skyscraper").color);
});

test("a search finds names that begin with the text before those that have it inside, in the page's language", () => {
  expect(
    findClasses(" Se", "en")
      .map(({ names }) => names.en)
      .slice(0, 4),
  ).toEqual(["sea", "seat", "house", "base"]);
  expect(findClasses("himmel", "de").map(({ names }) => names.en)).toEqual(["sky"]);
  expect(findClasses("", "de")).toEqual(ADE20K);
  expect(findClasses("no such class", "en")).toEqual([]);
});
