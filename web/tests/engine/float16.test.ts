import { expect, test } from "vitest";
import { widenFloat16 } from "../../src/engine/float16";

const widen = (...halves: number[]) => [...widenFloat16(new Uint8Array(Uint16Array.from(halves).buffer))];

test("widens normal numbers exactly", () => {
  expect(widen(0x3c00, 0xc000, 0x3555, 0x7bff)).toEqual([1, -2, 0.333251953125, 65504]);
});

test("widens subnormal numbers exactly", () => {
  expect(widen(0x0001, 0x83ff)).toEqual([2 ** -24, -1023 * 2 ** -24]);
});

test("keeps the sign of zero, infinities and NaN", () => {
  const [zero, plus, minus, nan] = widen(0x8000, 0x7c00, 0xfc00, 0x7e01);
  expect(zero).toBe(-0);
  expect([plus, minus]).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
  expect(nan).toBeNaN();
});

test("reads from an odd byte offset", () => {
  expect([...widenFloat16(Uint8Array.of(9, 0x00, 0x3c).subarray(1))]).toEqual([1]);
});
