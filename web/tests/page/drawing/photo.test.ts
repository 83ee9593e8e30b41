import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { attachBoard } from "../../../src/page/drawing/board";
import { Photo } from "../../../src/page/drawing/photo";
import { blank, FakeCanvas, stubBrowser } from "./fake_canvas";

let canvas: FakeCanvas;
let board: Photo;

beforeEach(() => {
  stubBrowser();
  canvas = new FakeCanvas();
  board = new Photo({ width: 64, height: 48 });
  attachBoard(canvas as unknown as HTMLCanvasElement, board);
  board.brushWidth.value = 1 / 8; // 8 pixels
});

afterEach(() => vi.unstubAllGlobals());

/** The mask's grey at (x, y). */
function mask(x: number, y: number): number {
  const { width, data } = board.maskImage() ?? blank(64, 48);
  return data[4 * (y * width + x)];
}

function stroke(...points: [number, number][]): void {
  const [first, ...others] = points;
  canvas.point("pointerdown", 1, ...first);
  for (const point of others) canvas.point("pointermove", 1, ...point);
  canvas.point("pointerup", 1, ...points[points.length - 1]);
}

test("what the brush went over is white in a mask of the model's size", () => {
  board.open(blank(200, 100));
  stroke([10, 20], [30, 20]);
  expect(board.maskImage()).toMatchObject({ width: 64, height: 48 });
  expect([mask(20, 20), mask(20, 17), mask(20, 26), mask(40, 20)]).toEqual([255, 255, 0, 0]);
});

test("a click is a dot, and the brush that rubs out takes it away", () => {
  board.open(blank(64, 48));
  stroke([20, 20]);
  expect(mask(20, 20)).toBe(255);
  board.erases.value = true;
  stroke([20, 20]);
  expect(board.maskImage()).toBeUndefined();
  board.undo();
  expect(mask(20, 20)).toBe(255);
});

test("without a picture there is nothing to brush over", () => {
  stroke([20, 20], [30, 30]);
  expect(board.canUndo).toBe(false);
  expect(board.image).toBeUndefined();
});

test("a stroke that the browser cancels is taken back", () => {
  board.open(blank(64, 48));
  canvas.point("pointerdown", 1, 20, 20);
  canvas.point("pointercancel", 1, 20, 20);
  expect(board.maskImage()).toBeUndefined();
});

test("another picture begins with nothing masked", () => {
  board.open(blank(64, 48));
  stroke([20, 20]);
  board.open(blank(64, 48));
  expect(board.maskImage()).toBeUndefined();
});

test("a drag that goes on while another picture is opened does not brush over that one", () => {
  board.open(blank(64, 48));
  canvas.point("pointerdown", 1, 20, 20);
  board.open(blank(64, 48));
  canvas.point("pointermove", 1, 40, 20);
  canvas.point("pointercancel", 1, 40, 20);
  expect(board.maskImage()).toBeUndefined();
});

test("all of the picture can be masked, and everything can be undone", () => {
  const first = blank(64, 48);
  board.open(first);
  board.maskAll();
  expect([mask(0, 0), mask(63, 47), mask(32, 24)]).toEqual([255, 255, 255]);
  board.clearMask();
  board.open(blank(32, 24));
  board.undo();
  board.undo();
  expect([board.source, mask(0, 0)]).toEqual([first, 255]);
  board.undo();
  board.undo();
  expect([board.image, board.canUndo]).toEqual([undefined, false]);
});

test("a model of another size leaves the picture and no mask", () => {
  const picture = blank(64, 48);
  board.open(picture);
  stroke([32, 24]);
  board.setSize({ width: 128, height: 128 });
  expect([board.source, board.maskImage(), board.canUndo]).toEqual([picture, undefined, false]);
  expect(board.image).toMatchObject({ width: 128, height: 128 });
});

test("the engine gets a photo at the model's size, with a notice of what was changed", () => {
  board.open(blank(640, 480));
  expect(board.image).toMatchObject({ width: 64, height: 48 });
  expect(board.notices.map(({ text }) => text)).toContain("photo: 640x480 was scaled to cover 64x48");
});

test("a photo that is too small is refused, and the one before it stays", () => {
  board.open(blank(64, 48));
  expect(() => board.open(blank(4, 4))).toThrow("photo: got 4x4 pixels, wanted 8x8 at least");
  expect(board.source).toMatchObject({ width: 64 });
});

test("keys move the brush, put it down and lift it", () => {
  board.open(blank(64, 48));
  canvas.press("ArrowLeft", " ", "ArrowRight", "ArrowRight", "ArrowRight", " ", "ArrowRight", "ArrowRight");
  expect(board.isDrawingByKeys).toBe(false);
  expect([mask(32, 24), mask(34, 24), mask(39, 24)]).toEqual([255, 255, 0]);
  board.undo();
  expect(board.maskImage()).toBeUndefined();
});

test("without a mask to brush, drags and keys leave the picture alone", () => {
  board.open(blank(64, 48));
  board.hasMask.value = false;
  stroke([20, 20], [30, 30]);
  canvas.press(" ", "ArrowRight");
  expect(board.isBrushed).toBe(false);
});
