import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { prepareImage } from "../../../src/engine/prepare_image";
import { type Annotation, PASS_THROUGH } from "../../../src/page/annotators/annotation";
import { attachBoard } from "../../../src/page/drawing/board";
import { ControlDrawing } from "../../../src/page/drawing/control_drawing";
import { EMPTY } from "../../../src/page/drawing/control_shape";
import type { Image } from "../../../src/worker";
import { blank, FakeCanvas, stubBrowser } from "./fake_canvas";

/** An annotator that is quick, and takes its time. */
vi.mock("../../../src/page/annotators/annotate", async (load) => {
  const { invert } = await load<typeof import("../../../src/page/annotators/annotate")>();
  return {
    invert,
    annotate: async (image: Image, { name, inverted }: Annotation) => {
      await new Promise((resolve) => setTimeout(resolve, inverted ? 0 : 20));
      const data = image.data.map((value, i) => (i % 4 === 3 ? 255 : value === 217 ? 255 : 0));
      const lines = name === "none" ? image : { ...image, data };
      return inverted ? invert(lines) : lines;
    },
  };
});

const SIZE = { width: 64, height: 48 };
const EDGES = { ...PASS_THROUGH, name: "canny" } as const;

let canvas: FakeCanvas;
let board: ControlDrawing;
/** Canvases that pixels were copied to. */
let copies: () => number;

beforeEach(() => {
  copies = stubBrowser();
  canvas = new FakeCanvas();
  board = new ControlDrawing(SIZE, 0.5, 0.5, 0.25);
  attachBoard(canvas as unknown as HTMLCanvasElement, board);
});

afterEach(() => vi.unstubAllGlobals());

/** Noise, in which there are edges. */
function photo(width: number, height: number) {
  const picture = blank(width, height);
  for (let i = 0; i < picture.data.length; i++) picture.data[i] = i % 4 === 3 ? 255 : (31 * i) % 256;
  return picture;
}

test("of two fingers the first draws, and lifting the second does not end its line", () => {
  board.setTool("pencil");
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 10);
  canvas.point("pointerdown", 2, 40, 40);
  canvas.point("pointermove", 2, 50, 40);
  canvas.point("pointerup", 2, 50, 40);
  canvas.point("pointermove", 1, 30, 10);
  canvas.point("pointerup", 1, 30, 10);
  canvas.point("pointermove", 1, 60, 10);
  const points = [10, 20, 30].map((x) => ({ x, y: 10 }));
  expect(board.shape).toEqual({ kind: "strokes", strokes: [{ points, width: 1.5, erases: false }] });
  expect(board.beginWith(EMPTY)).toBe(false);
});

test("a drag that the browser cancels is taken back, and the next one draws", () => {
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 10);
  canvas.point("pointercancel", 1, 20, 10);
  expect(board.shape).toMatchObject({ ring: { radius: 16 } });
  canvas.point("pointerdown", 2, 10, 10);
  canvas.point("pointermove", 2, 20, 10);
  expect(board.shape).toMatchObject({ ring: { radius: 10 } });
});

test("a picture is copied once, however long the line on it", async () => {
  board.open(blank(200, 100));
  await board.controlImage();
  board.setTool("pencil");
  canvas.point("pointerdown", 1, 0, 10);
  for (let x = 1; x < 20; x++) canvas.point("pointermove", 1, x, 10);
  await board.controlImage();
  expect(copies()).toBe(1);
});

test.each([PASS_THROUGH, EDGES])(
  "a board of another size fits the opened picture again ($name), also one that is undone",
  async (annotation) => {
    board.open(blank(200, 100), annotation);
    board.setSize({ width: 128, height: 128 });
    expect(await board.controlImage()).toMatchObject({ width: 128, height: 128 });
    board.show(EMPTY);
    board.setSize({ width: 32, height: 24 });
    board.undo();
    expect(board.shape).toMatchObject({ source: { width: 200 } });
    expect(await board.controlImage()).toMatchObject({ width: 32, height: 24 });
  },
);

test("the control image is what the engine would make of the opened picture, with its notices", async () => {
  const picture = photo(160, 96);
  board.open(picture);
  const given = prepareImage(await board.controlImage(), 48, 64);
  expect(given.notices).toEqual([]);
  const direct = prepareImage(picture, 48, 64);
  expect(given.pixels).toEqual(direct.pixels);
  expect(board.notices).toEqual(direct.notices);
});

test("while an annotator works there is no control image, and its result replaces the one before", async () => {
  board.open(photo(64, 48));
  const plain = await board.controlImage();
  board.open(photo(64, 48), EDGES);
  expect([board.isBusy, board.image.value]).toEqual([true, undefined]);
  const edges = await board.controlImage();
  expect(board.isBusy).toBe(false);
  expect(edges.data).not.toEqual(plain.data);
  board.undo();
  expect(await board.controlImage()).toBe(plain); // kept, and not made again
});

test("a change during an annotator's work wins, whichever ends first", async () => {
  board.open(photo(64, 48), EDGES);
  board.open(photo(64, 48), { ...EDGES, inverted: true });
  const image = await board.controlImage();
  const white = image.data.filter((value, i) => i % 4 === 0 && value === 255).length;
  expect(white).toBeGreaterThan((64 * 48) / 2);
});

test("a picture that comes back by undo while its annotator works has its control image", async () => {
  board.open(photo(64, 48), EDGES);
  board.clear();
  board.undo();
  expect(board.isBusy).toBe(true);
  expect(await board.controlImage()).toMatchObject({ width: 64, height: 48 });
});

test("keys draw with the brush where the ring is not the tool", () => {
  board.clear();
  board.setTool("pencil");
  canvas.press("ArrowLeft", "ArrowLeft", " ", "ArrowDown", "ArrowDown", "Escape", "ArrowDown");
  expect(board.shape).toMatchObject({
    strokes: [
      {
        points: [
          { x: 30, y: 24 },
          { x: 30, y: 25 },
          { x: 30, y: 26 },
        ],
      },
    ],
  });
});

test("the line tool draws from where the drag began to where it ended", () => {
  board.clear();
  board.setTool("line");
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 30);
  canvas.point("pointermove", 1, 40, 10);
  canvas.point("pointerup", 1, 40, 10);
  expect(board.shape).toMatchObject({
    strokes: [
      {
        points: [
          { x: 10, y: 10 },
          { x: 40, y: 10 },
        ],
      },
    ],
  });
});

test("a model of many lines keeps what was drawn when a ring is added", () => {
  board.isOneRing.value = false;
  board.clear();
  board.setTool("pencil");
  canvas.point("pointerdown", 1, 5, 5);
  canvas.point("pointermove", 1, 50, 5);
  canvas.point("pointerup", 1, 50, 5);
  board.setTool("ring");
  canvas.point("pointerdown", 1, 32, 24);
  canvas.point("pointermove", 1, 42, 24);
  canvas.point("pointerup", 1, 42, 24);
  expect(board.shape).toMatchObject({ kind: "strokes", strokes: [{ points: [{ x: 5 }, { x: 50 }] }, { width: 1.5 }] });
});

test("a board begins with a sample's lines until something was drawn, and the first line takes their place", () => {
  const line = { points: [{ x: 1, y: 1 }], width: 2, erases: false };
  const sample = { kind: "strokes", strokes: [line], isExample: true } as const;
  expect(board.beginWith(sample)).toBe(true);
  expect(board.beginWith({ ...sample, strokes: [line, line] })).toBe(true); // of another model
  board.setTool("pencil");
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 10);
  canvas.point("pointerup", 1, 20, 10);
  const points = [10, 20].map((x) => ({ x, y: 10 }));
  expect(board.shape).toEqual({ kind: "strokes", strokes: [{ points, width: 1.5, erases: false }] });
});
