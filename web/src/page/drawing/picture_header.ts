/** The size that a picture's file tells before it is decoded: decoding takes four bytes a pixel, and more. */

import type { Size } from "./marks";

/** Bytes in which an AVIF file says its size: its boxes of metadata come first. */
const AVIF_HEADER_BYTES = 65_536;
/** JPEG's markers of a frame: all of C0 to CF but those of tables. */
const isFrame = (marker: number) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);

/** Read the size of a PNG, JPEG, WebP, AVIF, GIF or BMP file; undefined of any other, and of one that is cut short. */
export async function readHeaderSize(file: Blob): Promise<Size | undefined> {
  try {
    const start = await read(file, 0, 32);
    const text = (at: number, count: number) => String.fromCharCode(...new Uint8Array(start.buffer, at, count));
    if (text(1, 3) === "PNG") return { width: start.getUint32(16), height: start.getUint32(20) };
    if (start.getUint16(0) === 0xffd8) return await jpegSize(file);
    if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") return webpSize(start, text(12, 4));
    if (text(0, 3) === "GIF") return { width: start.getUint16(6, true), height: start.getUint16(8, true) };
    if (text(0, 2) === "BM") return { width: start.getInt32(18, true), height: Math.abs(start.getInt32(22, true)) };
    if (text(4, 4) === "ftyp") return avifSize(await read(file, 0, AVIF_HEADER_BYTES));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the file is shorter than its kind of header
  }
  return undefined;
}

async function read(file: Blob, at: number, count: number): Promise<DataView<ArrayBuffer>> {
  return new DataView(await file.slice(at, at + count).arrayBuffer());
}

/** Go from marker to marker, past previews and profiles, to the frame. */
async function jpegSize(file: Blob): Promise<Size | undefined> {
  for (let at = 2; at < file.size; ) {
    const segment = await read(file, at, 9);
    if (segment.getUint8(0) !== 0xff) return undefined;
    const marker = segment.getUint8(1);
    if (marker === 0xff) at += 1;
    else if (isFrame(marker)) return { width: segment.getUint16(7), height: segment.getUint16(5) };
    else at += 2 + segment.getUint16(2);
  }
  return undefined;
}

/** https://developers.google.com/speed/webp/docs/riff_container */
function webpSize(start: DataView, chunk: string): Size | undefined {
  const bits24 = (at: number) => start.getUint16(at, true) + 65_536 * start.getUint8(at + 2);
  if (chunk === "VP8X") return { width: 1 + bits24(24), height: 1 + bits24(27) };
  if (chunk === "VP8 ") {
    return { width: start.getUint16(26, true) & 0x3fff, height: start.getUint16(28, true) & 0x3fff };
  }
  if (chunk !== "VP8L") return undefined;
  const bits = start.getUint32(21, true);
  return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
}

/** The largest `ispe` box (ISO/IEC 23008-12, image spatial extents): an AVIF file has one for each of its tiles, too. */
function avifSize(header: DataView): Size | undefined {
  let largest: Size | undefined;
  for (let at = 0; at + 16 <= header.byteLength; at++) {
    if (header.getUint32(at) !== 0x69737065) continue; // "ispe"
    const size = { width: header.getUint32(at + 8), height: header.getUint32(at + 12) };
    if (largest === undefined || size.width * size.height > largest.width * largest.height) largest = size;
  }
  return largest;
}
