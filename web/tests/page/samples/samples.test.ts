import { expect, test } from "vitest";
import { CONTROL_KINDS } from "../../../src/engine/constants";
import { annotatorsFor, parameterOf } from "../../../src/page/annotators/annotation";
import { ADE20K } from "../../../src/page/classes/ade20k";
import { drawShape } from "../../../src/page/drawing/control_shape";
import { isSubject } from "../../../src/page/samples/outlines";
import { fromCoco, poseStrokes } from "../../../src/page/samples/pose";
import { samplesFor } from "../../../src/page/samples/samples";
import { MEADOW, ROOM, renderScene } from "../../../src/page/samples/scene";

const BOARD = { width: 96, height: 64 };
const KINDS = ["", ...CONTROL_KINDS];

const colorsOf = (data: Uint8ClampedArray) => {
  const colors = new Set<string>();
  for (let i = 0; i < data.length; i += 4) colors.add(data.subarray(i, i + 3).join());
  return colors;
};

test.each(KINDS)(
  "samples for a ControlNet of kind '%s' fill a board of its size, each with another picture",
  (kind) => {
    const samples = samplesFor(kind, false);
    expect(samples.length).toBeGreaterThanOrEqual(2);
    const pictures = samples.map((sample) => {
      const shape = sample.shape(BOARD, annotatorsFor(kind)[0]);
      const image = shape.kind === "picture" ? shape.source : drawShape(shape, BOARD);
      expect(image).toMatchObject(BOARD);
      expect(sample.thumbnail({ width: 48, height: 48 })).toMatchObject({ width: 48, height: 48 });
      return image.data.join();
    });
    expect(new Set(pictures).size).toBe(samples.length);
  },
);

test("a scribble's samples are things that people draw, each with the word for it", () => {
  const subjects = samplesFor("scribble", false).map(({ subject }) => subject);
  expect(subjects).toEqual(["cat", "cup", "house", "star", "fish"]);
  expect(isSubject("star")).toBe(true);
  expect(isSubject("blue star")).toBe(false);
});

test("a photo gets the annotator of its kind, and a map that is ready none", () => {
  const nameOf = (kind: string) => {
    const shape = samplesFor(kind, false)[0].shape(BOARD, annotatorsFor(kind)[0]);
    return shape.kind === "picture" && shape.annotation.name;
  };
  expect(["canny", "softedge", "depth", "normalbae", "seg", "tile"].map(nameOf)).toEqual([
    ...["canny", "softedge", "none", "normal", "none", "tile"],
  ]);
});

test("a grid of colours has eight cells along the shorter side of any board", () => {
  const [sample] = samplesFor("color", false);
  const factors = [64, 128, 512].map((side) => {
    const shape = sample.shape({ width: side, height: 2 * side }, annotatorsFor("color")[0]);
    return shape.kind === "picture" && parameterOf(shape.annotation, "factor");
  });
  expect(factors).toEqual([8, 16, 64]);
});

test("a sample of classes has no colours but theirs", () => {
  const known = new Set(ADE20K.map(({ color }) => color.join()));
  for (const scene of [ROOM, MEADOW]) {
    const colors = colorsOf(renderScene(scene, BOARD, "classes").data);
    expect(colors.size).toBeGreaterThanOrEqual(3);
    expect([...colors].filter((color) => !known.has(color))).toEqual([]);
  }
});

test("what is near is light in a depth picture", () => {
  const { data } = renderScene(ROOM, BOARD, "depth");
  const grey = (x: number, y: number) => data[4 * (y * BOARD.width + x)];
  expect(grey(48, 62)).toBeGreaterThan(grey(48, 40));
  expect(grey(48, 40)).toBeGreaterThan(grey(2, 2));
  expect(colorsOf(data).size).toBeGreaterThan(30);
});

test("a pose has OpenPose's colours: points on the wheel in steps of 20 degrees, limbs darker", () => {
  const pose = Array.from({ length: 18 }, (_, i) => ({ x: 5 * i, y: 3 * i }));
  const colors = poseStrokes(pose, BOARD).map(({ color }) => color?.join());
  expect(colors.slice(0, 3)).toEqual(["153,0,0", "153,51,0", "153,102,0"]);
  expect(colors.slice(17)).toEqual([
    ...["255,0,0", "255,85,0", "255,170,0", "255,255,0", "170,255,0", "85,255,0", "0,255,0", "0,255,85", "0,255,170"],
    ...["0,255,255", "0,170,255", "0,85,255", "0,0,255", "85,0,255", "170,0,255", "255,0,255", "255,0,170", "255,0,85"],
  ]);
});

test("of COCO's points the neck is between the shoulders, and points that are not seen have no limbs", () => {
  const coco = Array.from({ length: 17 }, (_, i) => (i === 9 ? undefined : { x: i, y: 2 * i }));
  const pose = fromCoco(coco);
  expect(pose.length).toBe(18);
  expect([pose[1], pose[2], pose[7]]).toEqual([{ x: 5.5, y: 11 }, { x: 6, y: 12 }, undefined]);
  expect(poseStrokes(pose, BOARD).length).toBe(16 + 17);
});
