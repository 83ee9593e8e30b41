/**
 * Find Canny's edges (IEEE PAMI 8(6), 1986) as OpenCV does: a ControlNet for edges was trained on the edges
 * that OpenCV finds in photos. The twin of mlc_controlnet/images/annotators.py.
 */

import type { Image } from "../../worker";

/** Tangents of 22.5 and 67.5 degrees, between which OpenCV takes a gradient for a diagonal one. */
const TAN_22 = Math.round(Math.tan(Math.PI / 8) * 2 ** 15) / 2 ** 15;
const TAN_67 = TAN_22 + 2;

/**
 * Find edges: white lines of one pixel on black, of the picture's size. Transparency does not count.
 *
 * low, high: the thresholds of hysteresis, for a gradient of |gx| + |gy|. The result is that of `cv2.Canny(picture, low, high)`.
 */
export function findEdges(image: Image, low: number, high: number): Image {
  const { width, height } = image;
  const { strength, isRidge } = measureGradient(image);
  const isEdge = new Uint8Array(width * height);
  const waiting: number[] = [];
  const take = (i: number, threshold: number) => {
    if (isEdge[i] || !isRidge[i] || strength[i] <= threshold) return;
    isEdge[i] = 1;
    waiting.push(i);
  };
  for (let i = 0; i < isEdge.length; i++) take(i, high);
  for (let i = waiting.pop(); i !== undefined; i = waiting.pop()) {
    const [x, y] = [i % width, Math.floor(i / width)];
    for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
      for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
        take(row * width + column, low);
      }
    }
  }
  const data = new Uint8ClampedArray(4 * isEdge.length).fill(255);
  for (let i = 0; i < isEdge.length; i++) data.fill(255 * isEdge[i], 4 * i, 4 * i + 3);
  return { width, height, data };
}

/** Return whether a picture already shows light lines on black: most of it is dark, and none of it coloured. */
export function isOutline({ data }: Image): boolean {
  let dark = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [low, high] = [Math.min(data[i], data[i + 1], data[i + 2]), Math.max(data[i], data[i + 1], data[i + 2])];
    if (high - low > 64) return false;
    if (high < 64) dark++;
  }
  return dark >= 0.75 * (data.length / 4);
}

/**
 * Compute Sobel's gradient of the strongest channel, and whether it is a ridge: stronger than at both neighbours
 * across the edge. The picture's last pixels go on beyond its border, where the gradient counts as 0.
 */
function measureGradient({ width, height, data }: Image) {
  const padded = width + 2;
  const strengthAround = new Int32Array(padded * (height + 2)); // with a border of zeros
  const gradient = new Int16Array(2 * width * height); // gx, gy
  for (let y = 0; y < height; y++) {
    const rows = [Math.max(0, y - 1), y, Math.min(height - 1, y + 1)].map((row) => 4 * row * width);
    for (let x = 0; x < width; x++) {
      const [left, middle, right] = [4 * Math.max(0, x - 1), 4 * x, 4 * Math.min(width - 1, x + 1)];
      let strongest = -1;
      for (let channel = 0; channel < 3; channel++) {
        const [above, same, below] = rows.map((row) => row + channel);
        const rightSum = data[above + right] + 2 * data[same + right] + data[below + right];
        const leftSum = data[above + left] + 2 * data[same + left] + data[below + left];
        const gx = rightSum - leftSum;
        const belowSum = data[below + left] + 2 * data[below + middle] + data[below + right];
        const aboveSum = data[above + left] + 2 * data[above + middle] + data[above + right];
        const gy = belowSum - aboveSum;
        const strength = Math.abs(gx) + Math.abs(gy);
        if (strength <= strongest) continue;
        strongest = strength;
        gradient[2 * (y * width + x)] = gx;
        gradient[2 * (y * width + x) + 1] = gy;
      }
      strengthAround[(y + 1) * padded + x + 1] = strongest;
    }
  }
  const strength = new Int32Array(width * height);
  const isRidge = new Uint8Array(width * height);
  for (let i = 0; i < strength.length; i++) {
    const at = (Math.floor(i / width) + 1) * padded + (i % width) + 1;
    const [gx, gy] = [gradient[2 * i], gradient[2 * i + 1]];
    const [before, after, keepsPlateau] = neighboursAcross(gx, gy, padded);
    strength[i] = strengthAround[at];
    const next = strengthAround[at + after];
    isRidge[i] = Number(
      strength[i] > strengthAround[at + before] && (strength[i] > next || (keepsPlateau && strength[i] === next)),
    );
  }
  return { strength, isRidge };
}

/** Return the steps to both neighbours along the gradient, and whether a plateau of two pixels keeps the first. */
function neighboursAcross(gx: number, gy: number, row: number): [before: number, after: number, keepsPlateau: boolean] {
  const [x, y] = [Math.abs(gx), Math.abs(gy)];
  if (y < x * TAN_22) return [-1, 1, true];
  if (y > x * TAN_67) return [-row, row, true];
  const side = gx < 0 !== gy < 0 ? -1 : 1;
  return [-row - side, row + side, false];
}
