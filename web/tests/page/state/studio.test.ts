import { beforeEach, expect, test } from "vitest";
import { EMPTY } from "../../../src/page/drawing/control_shape";
import { Studio } from "../../../src/page/state/studio";
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
