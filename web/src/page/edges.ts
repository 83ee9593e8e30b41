/** Canny's edges of a picture (IEEE PAMI 8(6), 1986): what a ControlNet that draws from outlines wants of a photo. */

import type { Image } from "../worker";

/** A strong edge's gradient at the least and the most detail, and what a weak edge's is of it; in grey levels a pixel. */
const STRONG = { least: 120, most: 12 };
const WEAK_OF_STRONG = 0.5; // ControlNet's 100 and 200
/** Gaussian of standard deviation 1.1 or so, as binomial weights. */
const BLUR = [1, 4, 6, 4, 1].map((weight) => weight / 16);

/** White lines of one pixel on black. `detail` of 0..1: how faint an edge may be. */
export function findEdges(image: Image, detail: number): Image {
  const { width, height } = image;
  const { strength, isRidge } = measureGradient(blur(luminance(image), width, height), width, height);
  const strong = STRONG.least * (STRONG.most / STRONG.least) ** detail;
  const isEdge = new Uint8Array(width * height);
  const waiting: number[] = [];
  const take = (i: number, threshold: number) => {
    if (isEdge[i] || !isRidge[i] || strength[i] < threshold) return;
    isEdge[i] = 1;
    waiting.push(i);
  };
  for (let i = 0; i < isEdge.length; i++) take(i, strong);
  for (let i = waiting.pop(); i !== undefined; i = waiting.pop()) {
    // A ridge never lies on the border: all eight neighbours are there.
    for (const step of [-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1]) {
      take(i + step, strong * WEAK_OF_STRONG);
    }
  }
  const data = new Uint8ClampedArray(4 * isEdge.length).fill(255);
  for (let i = 0; i < isEdge.length; i++) data.fill(255 * isEdge[i], 4 * i, 4 * i + 3);
  return { width, height, data };
}

/** Whether a picture is lines of light on black already: most of it is dark, and none of it coloured. */
export function isOutline({ data }: Image): boolean {
  let dark = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [low, high] = [Math.min(data[i], data[i + 1], data[i + 2]), Math.max(data[i], data[i + 1], data[i + 2])];
    if (high - low > 64) return false;
    if (high < 64) dark++;
  }
  return dark >= 0.75 * (data.length / 4);
}

/** Rec. 601 luma, on black where it is transparent; 0..255. */
function luminance({ data }: Image): Float32Array {
  return Float32Array.from({ length: data.length / 4 }, (_, i) => {
    const [red, green, blue, alpha] = data.subarray(4 * i, 4 * i + 4);
    return ((0.299 * red + 0.587 * green + 0.114 * blue) * alpha) / 255;
  });
}

/** The picture goes on beyond its border as its last pixels are. */
function blur(plane: Float32Array, width: number, height: number): Float32Array {
  const along = (source: Float32Array, dx: number, dy: number) =>
    source.map((_, i) => {
      const [x, y] = [i % width, Math.floor(i / width)];
      return BLUR.reduce((sum, weight, tap) => {
        const [column, row] = [clamp(x + dx * (tap - 2), width), clamp(y + dy * (tap - 2), height)];
        return sum + weight * source[row * width + column];
      }, 0);
    });
  return along(along(plane, 1, 0), 0, 1);
}

function clamp(index: number, count: number): number {
  return Math.min(count - 1, Math.max(0, index));
}

/** Sobel's gradient, and where it is larger than at both neighbours across the edge. The border has none. */
function measureGradient(plane: Float32Array, width: number, height: number) {
  const strength = new Float32Array(plane.length);
  const across = new Int32Array(plane.length); // from a pixel to its neighbour in the gradient's direction
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = y * width + x;
      const at = (dx: number, dy: number) => plane[i + dy * width + dx];
      const gx = at(1, -1) + 2 * at(1, 0) + at(1, 1) - at(-1, -1) - 2 * at(-1, 0) - at(-1, 1);
      const gy = at(-1, 1) + 2 * at(0, 1) + at(1, 1) - at(-1, -1) - 2 * at(0, -1) - at(1, -1);
      strength[i] = Math.hypot(gx, gy) / 2;
      const octant = Math.round((4 * Math.atan2(gy, gx)) / Math.PI); // of 45 degrees
      across[i] = [1, width + 1, width, width - 1][((octant % 4) + 4) % 4];
    }
  }
  // A plateau of two keeps one pixel: greater on one side, not less on the other.
  const isRidge = strength.map((value, i) =>
    Number(value > 0 && value > strength[i - across[i]] && value >= strength[i + across[i]]),
  );
  return { strength, isRidge };
}
