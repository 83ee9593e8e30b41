import { expect, test } from "vitest";
import { kindText, unitName } from "../../../src/page/controls/descriptions";
import { Studio } from "../../../src/page/state/studio";
import { language } from "../../../src/page/text";
import { de } from "../../../src/page/text/de";
import { en } from "../../../src/page/text/en";
import { LINES, makeManifest } from "../../engine/sample_bundle";

/** The units of a page, of ControlNets of these kinds. */
function unitsOf(...kinds: readonly string[]) {
  const studio = new Studio();
  const controlnets = kinds.map((kind, i) => ({ ...LINES, name: `${kind}-${i}`, kind }));
  studio.manifest.value = makeManifest(undefined, { controlnets } as never);
  studio.controls.value[0].use(studio.manifest.value.controlnets[0]);
  for (const _ of kinds.slice(1)) studio.addControl();
  return studio;
}
const namesOf = ({ controls }: Studio) => controls.value.map((unit) => unitName(unit, controls.value));

test("a unit is called what its control image shows", () => {
  expect(namesOf(unitsOf("scribble", "color"))).toEqual(["Scribble", "Colour grid"]);
});

test("units of one kind have numbers, which close up when one is removed", () => {
  const studio = unitsOf("canny", "depth", "canny", "canny");
  expect(namesOf(studio)).toEqual(["Canny edges 1", "Depth", "Canny edges 2", "Canny edges 3"]);
  studio.removeControl(studio.controls.value[0]);
  expect(namesOf(studio)).toEqual(["Depth", "Canny edges 1", "Canny edges 2"]);
});

test("the list of models calls kinds as units are called, in the page's language, and keeps names that say something", () => {
  const kinds = ["", "controlnet", "controlnet_2", "canny", "controlnet_of_mine"];
  language.value = "de";
  expect(kinds.map(kindText)).toEqual(["Umriss", "Umriss", "Umriss", "Canny-Kanten", "controlnet_of_mine"]);
  language.value = "en";
  expect(kinds.map(kindText).slice(1, 4)).toEqual(["Outline", "Outline", "Canny edges"]);
});

test("a picture of the gallery goes to a unit by its name, and to one that is alone without", () => {
  expect([en, de].map(({ sendToControl }) => [sendToControl("Depth"), sendToControl()])).toEqual([
    ["To the control: Depth", "To the control"],
    ["Zur Steuerung: Depth", "Zur Steuerung"],
  ]);
});
