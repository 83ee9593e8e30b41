import { beforeEach, expect, test } from "vitest";
import { EMPTY } from "../../../src/page/drawing/control_shape";
import { strengthName } from "../../../src/page/state/strength";
import { Studio } from "../../../src/page/state/studio";
import { type Manifest, UserError } from "../../../src/worker";
import { DEPTH, LINES, makeManifest } from "../../engine/sample_bundle";

let studio: Studio;

beforeEach(() => {
  studio = new Studio();
  studio.manifest.value = makeManifest(undefined, { controlnets: [LINES, DEPTH] } as never);
  studio.controls.value[0].use(studio.manifest.value.controlnets[0]);
});

test("a further unit begins with an empty board, and there is nothing to undo", () => {
  studio.addControl();
  const [, { drawing }] = studio.controls.value;
  expect(drawing.shape).toEqual(EMPTY);
  expect(drawing.canUndo).toBe(false);
});

test("a further unit counts as the model recommends, as the first one does", () => {
  studio.controls.value[0].recommend(1.2);
  studio.manifest.value = { ...studio.manifest.peek(), defaults: { conditioning_scale: 1.2 } } as Manifest;
  studio.addControl();
  const strengths = studio.controls.value.map(({ weight, start, end }) =>
    strengthName({ weight: weight.value, start: start.value, end: end.value }, 1.2),
  );
  expect(strengths).toEqual(["default", "default"]);
});

test("a photo has a mask to brush whenever a part of it is repainted, whatever has chosen that", () => {
  const { request, photo } = studio;
  request.mode.value = "img2img"; // by the choice of the mode
  expect(photo.hasMask.value).toBe(false);
  request.mode.value = "inpaint"; // by a picture of the gallery
  expect(photo.hasMask.value).toBe(true);
});

test("the failure of an annotator is told once, and no longer when it works again", () => {
  const [{ id, drawing }] = studio.controls.value;
  const told = () => studio.messages.list.value.map(({ place, text }) => [place, text[0]]);
  const failure = (got: string) => new UserError("annotator", got, "an answer", "choose it again");
  drawing.failure.value = failure("none");
  drawing.failure.value = failure("nothing");
  expect(told()).toEqual([[id, "got nothing, wanted an answer."]]);
  drawing.failure.value = undefined;
  expect(told()).toEqual([]);
});

test("a unit that is alone can be switched on, but not off", () => {
  studio.addControl();
  const [first, second] = studio.controls.value;
  expect([first, second].map((unit) => studio.canSwitch(unit))).toEqual([true, true]);
  second.enabled.value = false;
  studio.removeControl(first);
  expect(studio.canSwitch(second)).toBe(true);
  second.enabled.value = true;
  expect(studio.canSwitch(second)).toBe(false);
});
