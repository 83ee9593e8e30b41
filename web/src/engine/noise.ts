/**
 * Seeded Gaussian noise, the same numbers in Python and in the browser.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is counter-based:
 * block i of a stream is a function of i and the seed, in 32-bit integers that every language has. Box and Muller's
 * transform turns its words into normals in float64, which are rounded to float32.
 *
 * Twin: mlc_controlnet/runtime/noise.py. Both are tested with tests/fixtures/noise.json.
 */

type Words = [number, number, number, number];

export const INITIAL_LATENTS_STREAM = 0;
/** Of step i, if its sampler draws noise: this and i. */
export const FIRST_STEP_STREAM = 1;

const ROUNDS = 10;
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57]; // Salmon et al., table 2
const KEY_INCREMENTS = [0x9e3779b9, 0xbb67ae85]; // the golden ratio and sqrt(3) - 1, as fractions of 2^32

/** Encrypt one counter of four uint32 with `key`, in ten rounds. */
export function philox4x32(counter: Readonly<Words>, key: readonly [number, number]): Words {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIERS[0], c0);
    const high1 = multiplyHigh(MULTIPLIERS[1], c2);
    const low0 = Math.imul(MULTIPLIERS[0], c0);
    const low1 = Math.imul(MULTIPLIERS[1], c2);
    [c0, c1, c2, c3] = [high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0];
    k0 = (k0 + KEY_INCREMENTS[0]) | 0;
    k1 = (k1 + KEY_INCREMENTS[1]) | 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/**
 * Return the first `count` words of a stream.
 *
 * The key is the low and the high half of the seed; the counter of block i is (i, 0, 0, stream).
 */
export function randomWords(count: number, seed: number, stream: number): Uint32Array {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)] as const;
  const words = new Uint32Array(4 * Math.ceil(count / 4));
  for (let block = 0; 4 * block < words.length; block++) words.set(philox4x32([block, 0, 0, stream], key), 4 * block);
  return words.subarray(0, count);
}

/** Generate independent normals of mean 0 and standard deviation 1, float32. The seed is an integer in 0..2^53 - 1. */
export function standardNormal(
  count: number,
  seed: number,
  stream: number = INITIAL_LATENTS_STREAM,
): Float32Array<ArrayBuffer> {
  const uniform = Float64Array.from(randomWords(count + (count % 2), seed, stream), (word) => (word + 0.5) * 2 ** -32);
  const normals = new Float32Array(uniform.length);
  for (let i = 0; i < uniform.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform[i]));
    const angle = 2 * Math.PI * uniform[i + 1];
    normals[i] = radius * Math.cos(angle);
    normals[i + 1] = radius * Math.sin(angle);
  }
  return normals.subarray(0, count);
}

/** Return the high 32 bits of a product of two uint32, from halves of 16 bits: JavaScript's numbers hold 53 bits. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh] = [a & 0xffff, a >>> 16];
  const [bLow, bHigh] = [b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16); // < 2^32
  const carry = aLow * bHigh + (middle & 0xffff); // < 2^32
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) | 0;
}
