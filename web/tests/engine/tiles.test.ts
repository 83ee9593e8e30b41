import { expect, test } from "vitest";
import { runAtAnySize, runInTiles, tileAxis } from "../../src/engine/tiles";
import { golden, ramp } from "./masks_fixture";

const CELLS = { height: 9, width: 13 };
const TILE = { height: 8, width: 4 };

test.each(golden.axes)("tiles of $tile lie over $length cells as in Python", ({ length, tile, tiles }) => {
  expect(tileAxis(length, tile).map(({ start, place }) => [start, place])).toEqual(tiles);
});

test("fewer cells than a tile has are a mistake", () => {
  expect(() => tileAxis(7, 8)).toThrow("7 latent cells are fewer than the 8 of a tile");
});

/** Two pixels per cell; the output also depends on the row in the tile. */
async function decode(z: Float32Array<ArrayBuffer>) {
  const [height, width] = [2 * TILE.height, 2 * TILE.width];
  return new Float32Array(4 * z.length).map((_, i) => {
    const [channel, y, x] = [Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width];
    return z[(channel * TILE.height + Math.floor(y / 2)) * TILE.width + Math.floor(x / 2)] + y;
  });
}

test("a decoder runs in tiles as in Python", async () => {
  const result = await runInTiles(decode, ramp(2 * CELLS.height * CELLS.width), CELLS, TILE, 1, 2);
  expect(result).toHaveLength(golden.tiled.length);
  for (const [i, value] of golden.tiled.entries()) expect(result[i]).toBeCloseTo(value, 4);
});

test("an encoder runs in tiles: larger tiles are read than written", async () => {
  const encode = async (x: Float32Array<ArrayBuffer>) => x.filter((_, i) => i % 2 === 0 && Math.floor(i / 8) % 2 === 0);
  const pixels = Float32Array.from({ length: 4 * CELLS.height * CELLS.width }, (_, i) => i);
  const cells = await runInTiles(encode, pixels, CELLS, TILE, 2, 1);
  const wanted = Array.from({ length: CELLS.height * CELLS.width }, (_, i) => {
    const [y, x] = [Math.floor(i / CELLS.width), i % CELLS.width];
    return 2 * y * 2 * CELLS.width + 2 * x;
  });
  for (const [i, value] of wanted.entries()) expect(cells[i]).toBeCloseTo(value, 3);
});

test("a compiled size runs whole and any other in tiles of the largest that fits", async () => {
  const seen = new Set<string>();
  const component = async (x: Float32Array<ArrayBuffer>, { height, width }: { height: number; width: number }) => {
    seen.add(`${width}x${height}`);
    expect(x).toHaveLength((height * width) / 4);
    return Float32Array.from({ length: height * width }, (_, i) => {
      const [y, column] = [Math.floor(i / width), i % width];
      return x[(Math.floor(y / 2) * width) / 2 + Math.floor(column / 2)];
    });
  };
  const sizes = [
    { height: 8, width: 8 },
    { height: 8, width: 16 },
    { height: 16, width: 8 },
  ];
  const size = { height: 12, width: 20 }; // pixels; a latent cell has 2 x 2
  const x = ramp(60);
  const whole = await runAtAnySize(component, x, size, [...sizes, size], 1, 2);
  expect([...seen]).toEqual(["20x12"]);
  seen.clear();
  const tiled = await runAtAnySize(component, x, size, sizes, 1, 2);
  expect([...seen]).toEqual(["16x8"]);
  for (const [i, value] of whole.entries()) expect(tiled[i]).toBeCloseTo(value, 4);
});
