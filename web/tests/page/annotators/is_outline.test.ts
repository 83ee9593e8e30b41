import { expect, test } from "vitest";
import { isOutline } from "../../../src/page/annotators/is_outline";
import { drawShape } from "../../../src/page/drawing/control_shape";
import { blackImage, drawStroke } from "../../../src/page/drawing/marks";

const SIZE = { width: 48, height: 40 };

test("rings are outlines; photos and drawings on paper are not", () => {
  const ring = drawShape({ kind: "ring", ring: { center: { x: 22, y: 19 }, radius: 12 } }, SIZE);
  expect(isOutline(ring)).toBe(true);
  expect(isOutline({ ...ring, data: ring.data.map((value, i) => (i % 4 === 3 ? 255 : 255 - value)) })).toBe(false);
  const photo = blackImage(SIZE.width, SIZE.height);
  drawStroke(photo, { points: [{ x: 22, y: 19 }], width: 24, erases: false, color: [240, 200, 20] });
  expect(isOutline(photo)).toBe(false);
});
