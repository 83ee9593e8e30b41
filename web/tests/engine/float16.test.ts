import { expect, test } from "vitest";
import { narrowFloat32, widenFloat16 } from "../../src/engine/float16";

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

test("every float16 is narrowed to itself", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, half) => half).filter((half) => (half & 0x7fff) <= 0x7c00);
  expect(narrowFloat32(widenFloat16(new Uint8Array(halves.buffer)))).toEqual(halves);
  expect(narrowFloat32(Float32Array.of(Number.NaN))[0] & 0x7fff).toBeGreaterThan(0x7c00);
});

test("narrowing takes the nearest number, of two as near the even one, and infinity where all are too small", () => {
  const halfway = (half: number) => (1 + (half + 0.5) / 1024) * 2 ** 3;
  const values = [halfway(4), halfway(5), halfway(5) * 1.00001, 2 ** -25, 3 * 2 ** -25, 65519, 65520, -1e9];
  expect([...narrowFloat32(Float32Array.from(values))]).toEqual([
    0x4804, 0x4806, 0x4806, 0x0000, 0x0002, 0x7bff, 0x7c00, 0xfc00,
  ]);
});
