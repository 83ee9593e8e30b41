import { expect, test } from "vitest";
import { sizeFor } from "../../../src/page/annotators/onnx_models";
import { readInput, readOutput, SCALINGS, toTensor } from "../../../src/page/annotators/onnx_tensors";
import type { Image } from "../../../src/worker";

/** 3 x 2 pixels of one colour. */
function filled(...color: [number, number, number]): Image {
  const data = new Uint8ClampedArray(4 * 6);
  for (let i = 0; i < 6; i++) data.set([...color, 255], 4 * i);
  return { width: 3, height: 2, data };
}

const SIZE = { width: 3, height: 2 };

test("an input is one picture of three colours, with the colours first or last; a side may be open", () => {
  expect(readInput("x", "float32", [1, 3, 256, 384])).toMatchObject({ planesFirst: true, width: 384, height: 256 });
  expect(readInput("x", "uint8", ["n", "h", "w", 3])).toMatchObject({ planesFirst: false, width: undefined });
  expect(readInput("x", "float32", [1, 1, 256, 384])).toBeUndefined();
  expect(readInput("x", "float32", [3, 256, 384])).toBeUndefined();
  expect(readInput("x", "int64", [1, 3, 256, 384])).toBeUndefined();
});

test.each([
  ["imagenet", [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]],
  ["unit", [1, 0, 0.2]],
  ["signed", [1, -1, -0.6]],
  ["bytes", [255, 0, 51]],
] as const)("colours become the numbers of the scaling %s", (scaling, expected) => {
  const input = { name: "x", type: "float32", planesFirst: true, width: undefined, height: undefined } as const;
  const { data, dims } = toTensor(filled(255, 0, 51), input, SIZE, scaling);
  expect(dims).toEqual([1, 3, 2, 3]);
  for (const [channel, value] of expected.entries()) expect(data[6 * channel + 4]).toBeCloseTo(value, 5);
});

test("a model of bytes reads them as they are, with the colours last if it wants them so", () => {
  const input = { name: "x", type: "uint8", planesFirst: false, width: undefined, height: undefined } as const;
  const { data, dims } = toTensor(filled(255, 0, 51), input, SIZE, SCALINGS[0]);
  expect([dims, [...data.slice(0, 6)]]).toEqual([
    [1, 2, 3, 3],
    [255, 0, 51, 255, 0, 51],
  ]);
});

const reds = (output: ReturnType<typeof readOutput>) =>
  output && "image" in output ? Array.from({ length: 6 }, (_, i) => output.image.data[4 * i]) : undefined;

test.each([[[2, 3]], [[1, 2, 3]], [[1, 1, 2, 3]], [[1, 2, 3, 1]]])(
  "depth of shape %j goes from black to white",
  (dims) => {
    expect(reds(readOutput({ dims, data: [-1, 0, 1, 2, 3, 4] }, SIZE))).toEqual([0, 51, 102, 153, 204, 255]);
  },
);

test("depth that is the same everywhere is black, not noise", () => {
  expect(reds(readOutput({ dims: [2, 3], data: Array(6).fill(7) }, SIZE))).toEqual(Array(6).fill(0));
});

test.each([
  [0, 1],
  [-1, 1],
  [0, 255],
])("colours from %d to %d keep their range", (low, high) => {
  const data = [low, high, low, high, low, high, ...Array(12).fill(low)];
  expect(reds(readOutput({ dims: [1, 3, 2, 3], data }, SIZE))).toEqual([0, 255, 0, 255, 0, 255]);
});

test("a heat map without a bright place is a point that is not seen", () => {
  const data = new Float32Array(18 * 6);
  data[6 * 4 + 5] = 0.9;
  const output = readOutput({ dims: [1, 18, 2, 3], data }, SIZE);
  const pose = output && "pose" in output ? output.pose : [];
  expect(pose.map((point, i) => (point ? [i, point.x, point.y] : undefined)).filter(Boolean)).toEqual([[4, 2.5, 1.5]]);
});

test("any other shape is none of these", () => {
  expect(readOutput({ dims: [1, 1000], data: Array(1000).fill(0) }, SIZE)).toBeUndefined();
  expect(readOutput({ dims: [1, 21, 2, 4], data: Array(168).fill(0) }, SIZE)).toBeUndefined();
  expect(readOutput({ dims: [5], data: Array(5).fill(0) }, SIZE)).toBeUndefined();
});

test("a side that the model leaves open follows the picture, in multiples of 32", () => {
  const picture = { width: 768, height: 512 };
  expect(sizeFor({ width: 256, height: 256 }, picture, 512)).toEqual({ width: 256, height: 256 });
  expect(sizeFor({ width: undefined, height: undefined }, picture, 512)).toEqual({ width: 512, height: 352 });
});
