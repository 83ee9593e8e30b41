import { expect, test } from "vitest";
import { composePrompt, type Palette, parsePrompt } from "../../../src/page/settings/prompt_colors";

const palette: Palette = { gold: [255, 215, 0], navy: [0, 0, 128] };

test("a composed prompt is parsed back", () => {
  const colors = { fill: "gold", background: "navy" };
  expect(composePrompt(colors)).toBe("gold circle with navy background");
  expect(parsePrompt(composePrompt(colors), palette)).toEqual(colors);
});

test("case and outer spaces do not count", () => {
  expect(parsePrompt("  Gold Circle with NAVY background ", palette)).toEqual({ fill: "gold", background: "navy" });
});

test.each(["", "gold circle", "gold circle with pink background", "a gold circle with navy background"])(
  "%j names no pair of colours",
  (prompt) => {
    expect(parsePrompt(prompt, palette)).toBeUndefined();
  },
);
