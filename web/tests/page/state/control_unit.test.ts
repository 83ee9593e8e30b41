import { expect, test } from "vitest";
import { RINGS } from "../../../src/page/samples/rings";
import { ControlUnit } from "../../../src/page/state/control_unit";
import { strengthName } from "../../../src/page/state/strength";

const unitOf = (scale: number) => {
  const unit = new ControlUnit(1, { width: 128, height: 128 });
  unit.recommend(scale);
  return unit;
};
const nameOf = ({ weight, start, end, recommendedWeight }: ControlUnit) =>
  strengthName({ weight: weight.value, start: start.value, end: end.value }, recommendedWeight.value ?? 1);

test("presets are shares of the scale that the model recommends", () => {
  const unit = unitOf(1.8);
  expect([unit.weight.value, nameOf(unit)]).toEqual([1.8, "strong"]);
  unit.setStrength("weak");
  expect([unit.weight.value, nameOf(unit)]).toEqual([1.26, "weak"]);
});

test("a preset stays the same preset with another model, and a weight of one's own stays as it is", () => {
  const unit = unitOf(1.8);
  unit.recommend(1);
  expect([unit.weight.value, nameOf(unit)]).toEqual([1, "strong"]);
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
