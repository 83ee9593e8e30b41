import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { philox4x32, randomWords, standardNormal } from "../../src/engine/noise";

interface Golden {
  known_answers: { counter: [number, number, number, number]; key: [number, number]; result: number[] }[];
  normals: { seed: number; stream: number; words: number[]; float32: number[] }[];
}

/** Written by the command that it names; the known answers are Random123's own. */
const golden: Golden = JSON.parse(readFileSync(new URL("../../../tests/fixtures/noise.json", import.meta.url), "utf8"));

test.each(golden.known_answers)("philox gives its authors' answer for counter $counter", ({ counter, key, result }) => {
  expect(philox4x32(counter, key)).toEqual(result);
});

describe.each(golden.normals)("seed $seed, stream $stream", ({ seed, stream, words, float32 }) => {
  test("gives Python's words, bit by bit", () => {
    expect([...randomWords(words.length, seed, stream)]).toEqual(words);
  });

  test("gives Python's normals to float rounding", () => {
    const normals = standardNormal(float32.length, seed, stream);
    // One unit in the last place: the logarithms and cosines of two languages may round differently.
    const errors = float32.map((wanted: number, i: number) => Math.abs(normals[i] - wanted) / Math.abs(wanted));
    expect(Math.max(...errors)).toBeLessThanOrEqual(2 ** -23);
  });
});

describe("standardNormal", () => {
  test("has mean 0 and variance 1", () => {
    const normals = standardNormal(100_000, 1);
    const mean = normals.reduce((sum, z) => sum + z, 0) / normals.length;
    const variance = normals.reduce((sum, z) => sum + z * z, 0) / normals.length;
    expect(Math.abs(mean)).toBeLessThan(0.01); // three sigma
    expect(Math.abs(variance - 1)).toBeLessThan(0.014); // three sigma
  });

  test("is the same when more is asked for", () => {
    expect(standardNormal(5, 7)).toEqual(standardNormal(64, 7).subarray(0, 5));
  });

  test("keeps seed 0 as a seed", () => {
    expect(standardNormal(4, 0)).not.toEqual(standardNormal(4, 1));
  });

  test("uses the seed's high bits", () => {
    expect(standardNormal(4, 5)).not.toEqual(standardNormal(4, 5 + 2 ** 32));
  });
});
