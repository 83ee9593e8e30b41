/**
 * The numbers that candidates compute with, drawn from a seed.
 * Twin: mlc_controlnet/tuning/values.py, which says why these.
 */

/** Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31/. @param {number} word */
function hash(word) {
  let x = Math.imul(word ^ (word >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}

/**
 * Return the content of a buffer: float32, float16 or uint32 values; zeros of any other dtype of four bytes.
 *
 * @param {string} dtype
 * @param {number} count of elements
 * @param {number} seed
 */
export function drawValues(dtype, count, seed) {
  const first = hash(seed);
  if (dtype === "float16") {
    const halves = new Uint16Array(count + (count % 2)); // buffers have whole words
    for (let i = 0; i < count; i++) {
      const word = hash(first + i);
      halves[i] = 0x3800 | (word & 0x3ff) | ((word >>> 16) & 0x8000);
    }
    return halves;
  }
  const words = new Uint32Array(count);
  if (dtype === "float32") for (let i = 0; i < count; i++) words[i] = 0x3f000000 | (hash(first + i) & 0x807fffff);
  else if (dtype === "uint32") for (let i = 0; i < count; i++) words[i] = hash(first + i);
  return words;
}
