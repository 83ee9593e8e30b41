import { expect, test, vi } from "vitest";
import { Recent } from "../../src/engine/recent";

test("what was used lately stays, and what was not makes room", () => {
  const removed = vi.fn();
  const recent = new Recent<string, number>(4, removed);
  recent.set("a", 1);
  for (const [i, key] of ["b", "c", "d", "e", "f", "g"].entries()) {
    recent.set(key, 2 + i);
    expect(recent.get("a")).toBe(1);
  }
  expect(recent.get("b")).toBeUndefined();
  expect(recent.get("g")).toBe(7);
  expect(removed).toHaveBeenCalledWith(2, "b");
  expect(removed).not.toHaveBeenCalledWith(1, "a");
});

test("a value that is replaced or deleted is told once", () => {
  const removed = vi.fn();
  const recent = new Recent<string, number>(4, removed);
  recent.set("a", 1);
  recent.set("a", 2);
  recent.delete("a");
  recent.delete("a");
  expect(removed.mock.calls).toEqual([
    [1, "a"],
    [2, "a"],
  ]);
});

test("the limit holds", () => {
  let held = 0;
  const recent = new Recent<number, number>(10, () => held--);
  for (let key = 0; key < 100; key++) {
    recent.set(key, key);
    expect(++held).toBeLessThanOrEqual(10);
  }
});
