import { expect, test } from "vitest";
import { History } from "../../../src/page/drawing/history";

test("what was changed comes back change by change, and a gesture's changes together", () => {
  const history = new History("a");
  history.change("b");
  history.change("c", "drag");
  history.change("d", "drag");
  expect([history.present, history.isOf("drag")]).toEqual(["d", true]);
  expect([history.undo(), history.present]).toEqual([true, "b"]);
  history.change("e", "drag"); // a new drag of the same name
  expect([history.undo(), history.present]).toEqual([true, "b"]);
  expect([history.undo(), history.present, history.canUndo]).toEqual([true, "a", false]);
  expect([history.undo(), history.present]).toEqual([false, "a"]);
});

test("fifty changes can be undone", () => {
  const history = new History(0);
  for (let i = 1; i <= 60; i++) history.change(i);
  let undone = 0;
  for (; history.canUndo; undone++) history.undo();
  expect([undone, history.present]).toEqual([50, 10]);
});

test("a board of another size changes every state, and a new beginning forgets them", () => {
  const history = new History(1);
  history.change(2);
  history.map((state) => 10 * state);
  expect([history.present, history.undo(), history.present]).toEqual([20, true, 10]);
  history.change(3);
  history.reset(4);
  expect([history.present, history.canUndo]).toEqual([4, false]);
});

test("what was undone can be redone, until something else changes", () => {
  const history = new History("a");
  history.change("b");
  history.change("c");
  history.undo();
  history.undo();
  expect([history.redo(), history.present, history.canRedo]).toEqual([true, "b", true]);
  history.change("d");
  expect([history.redo(), history.present]).toEqual([false, "d"]);
});

test("a gesture that came to nothing is not there to redo", () => {
  const history = new History("a");
  history.change("b", "drag");
  history.takeBack("another drag");
  expect(history.present).toBe("b");
  history.takeBack("drag");
  expect([history.present, history.canUndo, history.canRedo]).toEqual(["a", false, false]);
});
