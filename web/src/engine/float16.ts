/** float16 without Float16Array, which some browsers with WebGPU lack. */

/** The float32 bits of each of the 65,536 float16 numbers, computed at first use (256 KiB). */
let table: Uint32Array | undefined;

/** Widen little-endian float16 to float32, exactly. `bytes` may start at any offset. */
export function widenFloat16(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  table ??= float32BitsOfFloat16();
  const bits = new Uint32Array(bytes.byteLength / 2);
  for (let i = 0; i < bits.length; i++) bits[i] = table[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
  return new Float32Array(bits.buffer);
}

function float32BitsOfFloat16(): Uint32Array {
  const bits = new Uint32Array(65536);
  const asFloat = new Float32Array(bits.buffer);
  for (let half = 0; half < 65536; half++) {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 31) asFloat[half] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) asFloat[half] = sign * fraction * 2 ** -24;
    else asFloat[half] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return bits;
}

/** Narrow float32 to the bits of float16: to the nearest, of two as near to the even one, as numpy does. */
export function narrowFloat32(values: Float32Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (bits32, i) => {
    const sign = (bits32 >>> 16) & 0x8000;
    const exponent = Math.max(((bits32 >>> 23) & 255) - 127, -14);
    if (exponent > 15) return sign | (Number.isNaN(values[i]) ? 0x7e00 : 0x7c00);
    const steps = Math.abs(values[i]) * 2 ** (10 - exponent); // 1024 to 2048, less of a subnormal number
    const rounded = Math.round(steps); // up, of two as near
    const even = rounded - steps === 0.5 ? rounded - (rounded & 1) : rounded;
    return sign | ((exponent + 14) * 1024 + even);
  });
}
