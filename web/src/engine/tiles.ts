/**
 * Run a component that was compiled for one size over larger inputs: overlapping tiles, blended linearly.
 *
 * Layout and weights are those of diffusers' AutoencoderKL.tiled_decode and tiled_encode, with an overlap of a quarter. A
 * compiled component takes full tiles only: where diffusers cuts the last tile off at the border, this one moves it
 * inwards, and the cells before its place in the layout are dropped. Twin: mlc_controlnet/runtime/tiles.py.
 */

import type { FloatArray } from "./components.ts";
import type { Size } from "./size.ts";

/** The overlap of tiles, as a share of a tile's side. */
const OVERLAP = 0.25;

/** One tile along an axis, in latent cells. */
export interface Tile {
  /** The first cell that the component reads. */
  readonly start: number;
  /** The first cell that the result takes, start or later; with the next tile it shares the overlap. */
  readonly place: number;
}

/** float32 [1, C, H, W] in C order. */
interface Tensor extends Size {
  readonly data: FloatArray;
}

/** Lay tiles of `tile` cells over `length` cells, which are as many at least. */
export function tileAxis(length: number, tile: number): Tile[] {
  if (length < tile) throw new Error(`${length} latent cells are fewer than the ${tile} of a tile`);
  const stride = tileStride(tile);
  const tiles = [{ start: 0, place: 0 }];
  for (let last = tiles[0]; last.start + tile < length; ) {
    const place = last.place + stride;
    last = { start: Math.min(place, length - tile), place };
    tiles.push(last);
  }
  return tiles;
}

/** Return the distance between tiles of `tile` cells; the rest is the overlap. */
export function tileStride(tile: number): number {
  return Math.trunc(tile * (1 - OVERLAP));
}

/**
 * Run a component on the whole of x if it is compiled for this size, otherwise in tiles of the largest that fits.
 *
 * size: of the picture that x is or becomes; component: see `runInTiles`, it also gets the size of the tile's picture;
 * sizes: of pictures for which it is compiled, of which one at least is not larger. All in pixels.
 */
export function runAtAnySize(
  component: (x: FloatArray, size: Size) => Promise<FloatArray>,
  x: FloatArray,
  size: Size,
  sizes: readonly Size[],
  cellIn: number,
  cellOut: number,
): Promise<FloatArray> {
  const { height, width } = size;
  if (sizes.some((one) => one.height === height && one.width === width)) return component(x, { height, width });
  const fitting = sizes.filter((one) => one.height <= height && one.width <= width);
  const tile = fitting.reduce((a, b) => (b.height * b.width > a.height * a.width ? b : a));
  const factor = Math.max(cellIn, cellOut); // pixels on a side of a latent cell
  const inCells = (pixels: Size) => ({ height: pixels.height / factor, width: pixels.width / factor });
  return runInTiles((part) => component(part, tile), x, inCells(size), inCells(tile), cellIn, cellOut);
}

/**
 * Run a component on every tile and blend the outputs.
 *
 * component: takes float32 [1, C, tile.height cellIn, tile.width cellIn], returns [1, C', tile.height cellOut, ...].
 * x: float32 [1, C, h cellIn, w cellIn] of h x w latent cells, `cells`, with at least a tile's; the result is
 * [1, C', h cellOut, w cellOut]. cellIn, cellOut: the side of a latent cell in x and in the result: 1 and 8 for a
 * decoder, 8 and 1 for an encoder.
 */
export async function runInTiles(
  component: (x: FloatArray) => Promise<FloatArray>,
  x: FloatArray,
  cells: Size,
  tile: Size,
  cellIn: number,
  cellOut: number,
): Promise<FloatArray> {
  const vertical = tileAxis(cells.height, tile.height);
  const horizontal = tileAxis(cells.width, tile.width);
  const whole = { data: x, width: cells.width * cellIn, height: cells.height * cellIn };
  const stride = { width: tileStride(tile.width) * cellOut, height: tileStride(tile.height) * cellOut };
  let result: Tensor | undefined;
  let above: Tensor[] = [];
  for (const [i, down] of vertical.entries()) {
    const row: Tensor[] = [];
    for (const [j, across] of horizontal.entries()) {
      const from = { left: across.start * cellIn, top: down.start * cellIn };
      const input = cut(whole, from, { width: tile.width * cellIn, height: tile.height * cellIn });
      const output = { width: tile.width * cellOut, height: tile.height * cellOut, data: await component(input.data) };
      let part = cut(output, {
        left: (across.place - across.start) * cellOut,
        top: (down.place - down.start) * cellOut,
      });
      if (i > 0) part = blend(cut(above[j], { left: 0, top: stride.height }), part, "height");
      if (j > 0) part = blend(cut(row[j - 1], { left: stride.width, top: 0 }), part, "width");
      row.push(part);
      result ??= emptyLike(part, { width: cells.width * cellOut, height: cells.height * cellOut });
      // The next tiles write over the overlap.
      put(result, part, { left: across.place * cellOut, top: down.place * cellOut });
    }
    above = row;
  }
  return (result as Tensor).data; // there is one tile at least
}

/** Fade from the end of one tile, the overlap, to the beginning of the next: the k-th of n has the weight k / n. */
export function blend(before: Tensor, after: Tensor, axis: "width" | "height"): Tensor {
  const data = after.data.slice();
  const count = before[axis];
  const channels = data.length / (after.width * after.height);
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < before.height; y++) {
      for (let x = 0; x < before.width; x++) {
        const weight = (axis === "width" ? x : y) / count;
        const place = (channel * after.height + y) * after.width + x;
        const faded = before.data[(channel * before.height + y) * before.width + x] * (1 - weight);
        data[place] = faded + data[place] * weight;
      }
    }
  }
  return { ...after, data };
}

interface Place {
  readonly left: number;
  readonly top: number;
}

/** Copy a part of a tensor: of `size`, or up to the end. */
function cut(from: Tensor, { left, top }: Place, size: Size = { width: from.width - left, height: from.height - top }) {
  const part = emptyLike(from, size);
  copyRows(from, { left, top }, part, { left: 0, top: 0 }, size);
  return part;
}

/** Write a tensor over a part of another. */
function put(target: Tensor, part: Tensor, place: Place): void {
  copyRows(part, { left: 0, top: 0 }, target, place, part);
}

function copyRows(from: Tensor, start: Place, to: Tensor, place: Place, { width, height }: Size): void {
  const channels = from.data.length / (from.width * from.height);
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const source = (channel * from.height + start.top + y) * from.width + start.left;
      const target = (channel * to.height + place.top + y) * to.width + place.left;
      to.data.set(from.data.subarray(source, source + width), target);
    }
  }
}

function emptyLike(tensor: Tensor, size: Size): Tensor {
  const channels = tensor.data.length / (tensor.width * tensor.height);
  return { width: size.width, height: size.height, data: new Float32Array(channels * size.width * size.height) };
}
