import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DrawingBoard } from "../../src/page/drawing_board";
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
  const look = { edges, detail: 0.5, inverted: false };
  board.show({ kind: "picture", source: blank(200, 100), look, picture: blank(64, 48), strokes: [] });
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

test("fifty changes can be undone", () => {
  for (let i = 0; i < 60; i++) board.show(EMPTY);
  let undone = 0;
  for (; board.canUndo; undone++) board.undo();
  expect(undone).toBe(50);
});

test("a board of another size finds a picture's edges again, also of the picture that is undone", () => {
  showPicture(true);
  board.setSize(128, 128);
  expect(shape).toMatchObject({ picture: { width: 128, height: 128 } });
  board.show(EMPTY);
  board.setSize(32, 24);
  board.undo();
  expect(shape).toMatchObject({ source: { width: 200 }, picture: { width: 32, height: 24 } });
});

test("a photo is not touched by the board's size", () => {
  showPicture(false);
  board.setSize(128, 128);
  expect(shape).toMatchObject({ picture: { width: 64, height: 48 } });
});
