/** Widen float16 with a table, because some browsers with WebGPU lack Float16Array. */

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
