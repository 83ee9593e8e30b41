import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { beforeAll, expect, test } from "vitest";
import { withoutEval } from "../../../opencv_without_eval";
import type { Annotation, AnnotatorName } from "../../../src/page/annotators/annotation";
import { annotateWith, type OpenCv, whenReady } from "../../../src/page/annotators/opencv";
import type { Image } from "../../../src/worker";

interface Case {
  readonly name: AnnotatorName;
  readonly parameters: Record<string, number>;
  readonly channels: number;
  readonly pixels: string;
}

/** Pictures and what Python's annotators make of them; tests/images/test_annotators.py holds them against Python. */
const golden = JSON.parse(readFileSync("../tests/fixtures/annotators.json", "utf8")) as {
  width: number;
  height: number;
  rgb: string;
  cases: Case[];
};
/** Pixels that may lie on the other side of a threshold: floats are summed in another order. */
const ON_THE_EDGE = 0.002;

let cv: OpenCv;

beforeAll(async () => {
  ({ cv } = await whenReady(createRequire(import.meta.url)("@techstark/opencv-js")));
}, 60_000);

function toImage(width: number, height: number, rgb: Uint8Array): Image {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < data.length; i++) data[i] = i % 4 === 3 ? 255 : rgb[3 * (i >> 2) + (i % 4)];
  return { width, height, data };
}

const picture = toImage(golden.width, golden.height, Buffer.from(golden.rgb, "base64"));
const annotate = (name: AnnotatorName, parameters: Record<string, number>) =>
  annotateWith(cv, picture, { name, parameters, inverted: false } satisfies Annotation);

test.each(golden.cases)("$name with $parameters is what Python makes of the picture", (wanted) => {
  const { data } = annotate(wanted.name, wanted.parameters);
  const pixels = Buffer.from(wanted.pixels, "base64");
  const differences = Array.from({ length: (3 * data.length) / 4 }, (_, i) => {
    const [pixel, channel] = [Math.floor(i / 3), i % 3];
    return Math.abs(data[4 * pixel + channel] - pixels[wanted.channels === 1 ? pixel : i]);
  });
  const isExact = wanted.name === "canny" || wanted.name === "color" || wanted.name === "threshold";
  const different = differences.filter((difference) => difference > (isExact ? 0 : 1)).length;
  expect(different).toBeLessThanOrEqual(wanted.name === "scribble" ? ON_THE_EDGE * differences.length : 0);
});

test("canny finds the edges that a model was trained with", () => {
  const { width, height, rgb, edges } = JSON.parse(readFileSync("../tests/fixtures/canny.json", "utf8"));
  const found = annotateWith(cv, toImage(width, height, Buffer.from(rgb, "hex")), {
    name: "canny",
    parameters: {},
    inverted: false,
  });
  const row = (y: number) => Array.from({ length: width }, (_, x) => (found.data[4 * (y * width + x)] ? "#" : "."));
  expect(Array.from({ length: height }, (_, y) => row(y).join(""))).toEqual(edges);
});

test("thresholds decide whether a faint edge counts", () => {
  const white = ({ data }: Image) => data.filter((value, i) => i % 4 === 0 && value === 255).length;
  expect(white(annotate("canny", { low: 400, high: 800 }))).toBeLessThan(
    white(annotate("canny", { low: 20, high: 60 })),
  );
});

test("what OpenCV allocates for a picture is freed", () => {
  const heap = () => (cv as unknown as { HEAPU8: Uint8Array }).HEAPU8.length;
  for (let i = 0; i < 20; i++) annotate("softedge", {});
  const before = heap();
  for (let i = 0; i < 200; i++) annotate("softedge", {});
  expect(heap()).toBe(before);
});

test("the OpenCV.js of the page builds no functions from strings, which its policy forbids", () => {
  const source = readFileSync("node_modules/@techstark/opencv-js/dist/opencv.js", "latin1");
  expect(() => withoutEval(source)).not.toThrow();
  expect(() => withoutEval("a newer OpenCV.js")).toThrow("no longer");
});
