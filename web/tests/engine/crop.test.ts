import { expect, test } from "vitest";
import { cutOut, putBack } from "../../src/engine/crop";
import { distance, golden, MODEL, PICTURE, picture } from "./masks_fixture";

function cropOf([left, top, right, bottom]: [number, number, number, number]) {
  return { left, top, right, bottom, picture: PICTURE };
}

test.each(golden.cut_out)("the part $box is cut out as in Python, to the last bit", ({ box, pixels }) => {
  expect(distance(cutOut(picture(), cropOf(box), MODEL.height, MODEL.width), pixels)).toBe(0);
});

test.each(golden.put_back)("a picture goes back to $box as in Python, to the last bit", ({ box, pixels }) => {
  expect(distance(putBack(picture(MODEL), cropOf(box)), pixels)).toBe(0);
});
