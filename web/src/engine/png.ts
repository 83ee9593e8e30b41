/** Encode a picture as a PNG file with metadata. Twin: mlc_controlnet/runtime/png.py. */

import type { Image } from "./picture.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const EIGHT_BITS = 8;
const RGB = 2;

type Bytes = Uint8Array<ArrayBuffer>;

/** Encode as 8-bit RGB without alpha. Each entry of `metadata` becomes one iTXt chunk in UTF-8. */
export async function encodePng(image: Image, metadata: Readonly<Record<string, string>> = {}): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, image.width);
  header.setUint32(4, image.height);
  header.setUint8(8, EIGHT_BITS);
  header.setUint8(9, RGB);
  const texts = Object.entries(metadata).map(([key, text]) => chunk("iTXt", internationalText(key, text)));
  const pixels = chunk("IDAT", await deflate(scanlines(image)));
  const parts = [
    SIGNATURE,
    chunk("IHDR", new Uint8Array(header.buffer)),
    ...texts,
    pixels,
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob(parts, { type: "image/png" });
}

/** Return the rows of RGB pixels. Each row starts with its filter type, which is 0 for no filter. */
function scanlines({ width, height, data }: Image): Bytes {
  const rows = new Uint8Array(height * (1 + 3 * width));
  let out = 0;
  for (let y = 0; y < height; y++) {
    out++;
    for (let x = 0; x < width; x++) {
      const pixel = 4 * (y * width + x);
      rows.set(data.subarray(pixel, pixel + 3), out);
      out += 3;
    }
  }
  return rows;
}

/** Return the content of an iTXt chunk: keyword, not compressed, no language, no translated keyword, text. */
function internationalText(key: string, text: string): Bytes {
  return new TextEncoder().encode(`${key}\0\0\0\0\0${text}`);
}

function chunk(type: string, content: Bytes): Bytes {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

/** Compute the CRC of a chunk (PNG specification, annex D). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** Compress in the zlib format, which PNG uses and which browsers call deflate. */
async function deflate(bytes: Bytes): Promise<Bytes> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
