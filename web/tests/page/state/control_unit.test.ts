import { expect, test, vi } from "vitest";
import { PASS_THROUGH } from "../../../src/page/annotators/annotation";
import { RINGS } from "../../../src/page/samples/rings";
import { type ControlNetEntry, ControlUnit } from "../../../src/page/state/control_unit";
import { strengthName } from "../../../src/page/state/strength";
import { blank, stubBrowser } from "../drawing/fake_canvas";

vi.mock("../../../src/page/annotators/annotate", () => ({ annotate: async (image: unknown) => image }));

const unitOf = (scale: number) => {
  const unit = new ControlUnit(1, { width: 128, height: 128 });
  unit.recommend(scale);
  return unit;
};
const nameOf = ({ weight, start, end, recommendedWeight }: ControlUnit) =>
  strengthName({ weight: weight.value, start: start.value, end: end.value }, recommendedWeight.value ?? 1);

test("presets are shares of the scale that the model recommends", () => {
  const unit = unitOf(1.8);
  expect([unit.weight.value, nameOf(unit)]).toEqual([1.8, "default"]);
  unit.setStrength("weak");
  expect([unit.weight.value, nameOf(unit)]).toEqual([1.26, "weak"]);
});

test("a scale of three decimals is the default's, also after another preset", () => {
  const unit = unitOf(1.125);
  expect(nameOf(unit)).toBe("default");
  unit.setStrength("weak");
  expect([unit.weight.value, nameOf(unit)]).toEqual([0.79, "weak"]);
  unit.setStrength("default");
  expect([unit.weight.value, nameOf(unit)]).toEqual([1.125, "default"]);
});

test("a preset stays the same preset with another model, and a weight of one's own stays as it is", () => {
  const unit = unitOf(1.8);
  unit.recommend(1);
  expect([unit.weight.value, nameOf(unit)]).toEqual([1, "default"]);
  unit.weight.value = 0.35;
  unit.recommend(1.8);
  expect([unit.weight.value, nameOf(unit)]).toEqual([0.35, undefined]);
});

test("a weight from a link is kept, also one that would be a preset", () => {
  const unit = new ControlUnit(1, { width: 128, height: 128 });
  unit.weight.value = 1;
  unit.recommend(1.8);
  expect(unit.weight.value).toBe(1);
});

test("a picture has an annotator of the ControlNet that the unit uses, also one that is undone", () => {
  stubBrowser();
  const unit = unitOf(1);
  unit.use({ name: "scribble", kind: "scribble" } as ControlNetEntry);
  unit.drawing.open(blank(128, 128), { ...PASS_THROUGH, name: "threshold" });
  unit.drawing.clear();
  unit.use({ name: "color", kind: "color" } as ControlNetEntry);
  unit.drawing.undo();
  expect(unit.drawing.shape).toMatchObject({ annotation: { name: "color", parameters: { factor: 16 } } });
  unit.use({ name: "scribble", kind: "scribble" } as ControlNetEntry);
  expect(unit.drawing.shape).toMatchObject({ annotation: { name: "scribble" } });
  vi.unstubAllGlobals();
});

test("a board takes the width of the brush that another ControlNet begins with", () => {
  const unit = unitOf(1);
  unit.use({ name: "scribble", kind: "scribble" } as ControlNetEntry);
  unit.drawFreely();
  const thin = unit.drawing.lineWidth.value;
  unit.use({ name: "color", kind: "color" } as ControlNetEntry);
  expect(unit.drawing.lineWidth.value).toBe(16);
  unit.use({ name: "scribble", kind: "scribble" } as ControlNetEntry);
  expect(unit.drawing.lineWidth.value).toBe(thin);
});

test("a model of one ring replaces another model's example, and not what the visitor has drawn", () => {
  const unit = unitOf(1);
  const example = { kind: "strokes", strokes: [{ points: [{ x: 1, y: 1 }], width: 2, erases: false }] } as const;
  unit.drawing.beginWith({ ...example, isExample: true });
  expect(unit.drawing.shape.kind).toBe("strokes");
  unit.drawOneRing();
  expect(unit.drawing.shape).toMatchObject({ kind: "ring", ring: { radius: RINGS[0][2] * 128 } });
  unit.drawing.show(example);
  unit.drawOneRing();
  expect(unit.drawing.shape.kind).toBe("strokes");
});
