import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { prepareImage } from "../../src/engine/prepare_image";
import { DrawingBoard } from "../../src/page/drawing_board";
import { openedPicture } from "../../src/page/opened_picture";
import { EMPTY, type Shape } from "../../src/page/outline";
import { blank, FakeCanvas, stubBrowser } from "./fake_canvas";

let canvas: FakeCanvas;
let board: DrawingBoard;
let shape: Shape;
/** Canvases that pixels were copied to. */
let copies: () => number;

beforeEach(() => {
  copies = stubBrowser();
  canvas = new FakeCanvas();
  board = new DrawingBoard(canvas as unknown as HTMLCanvasElement, 0.5, 0.5, 0.25);
  board.onChange = (changed) => {
    shape = changed;
  };
});

afterEach(() => vi.unstubAllGlobals());

function showPicture(edges: boolean): void {
  board.show(openedPicture(blank(200, 100), edges, board.size));
}

test("of two fingers the first draws, and lifting the second does not end its line", () => {
  board.tool = "pencil";
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 10);
  canvas.point("pointerdown", 2, 40, 40);
  canvas.point("pointermove", 2, 50, 40);
  canvas.point("pointerup", 2, 50, 40);
  canvas.point("pointermove", 1, 30, 10);
  canvas.point("pointerup", 1, 30, 10);
  canvas.point("pointermove", 1, 60, 10);
  const points = [10, 20, 30].map((x) => ({ x, y: 10 }));
  expect(shape).toEqual({ kind: "strokes", strokes: [{ points, width: 1.5, erases: false }] });
});

test("a drag that the browser cancels is taken back, and the next one draws", () => {
  canvas.point("pointerdown", 1, 10, 10);
  canvas.point("pointermove", 1, 20, 10);
  canvas.point("pointercancel", 1, 20, 10);
  expect(shape).toMatchObject({ ring: { radius: 16 } });
  canvas.point("pointerdown", 2, 10, 10);
  canvas.point("pointermove", 2, 20, 10);
  expect(shape).toMatchObject({ ring: { radius: 10 } });
});

test("a picture is copied once, however long the line on it", () => {
  showPicture(false);
  board.tool = "pencil";
  canvas.point("pointerdown", 1, 0, 10);
  for (let x = 1; x < 20; x++) canvas.point("pointermove", 1, x, 10);
  expect(copies()).toBe(1);
});

test.each([true, false])(
  "a board of another size fits the opened picture again (edges: %s), also one that is undone",
  (edges) => {
    showPicture(edges);
    board.setSize(128, 128);
    expect(shape).toMatchObject({ picture: { width: 128, height: 128 } });
    board.show(EMPTY);
    board.setSize(32, 24);
    board.undo();
    expect(shape).toMatchObject({ source: { width: 200 }, picture: { width: 32, height: 24 } });
  },
);

test("the control image is what the engine would make of the opened picture, with its notices", () => {
  const photo = blank(160, 96);
  for (let i = 0; i < photo.data.length; i++) photo.data[i] = i % 4 === 3 ? 255 : (31 * i) % 256;
  board.show(openedPicture(photo, false, board.size));
  const given = prepareImage(board.controlImage(), 48, 64);
  expect(given.notices).toEqual([]);
  const direct = prepareImage(photo, 48, 64);
  expect(given.pixels).toEqual(direct.pixels);
  expect(board.notices).toEqual(direct.notices);
});
