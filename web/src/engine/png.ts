/** Write a picture as a PNG file with texts, and read the texts of any PNG file. Twin: mlc_controlnet/runtime/png.py. */

import { UserError } from "./errors.ts";
import type { Image } from "./picture.ts";

/** Stable Diffusion web UI's text. */
export const PARAMETERS = "parameters";
/** Bytes: a workflow takes some 100 KB, a compressed bomb any number. */
const LARGEST_TEXT = 2 ** 24;
const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const EIGHT_BITS = 8;
const RGB = 2;

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * Encode as 8-bit RGB without alpha. Each entry of `metadata` becomes one iTXt chunk in UTF-8. `parameters` becomes a tEXt
 * chunk if Latin-1 can hold it: some of its readers know no other kind.
 */
export async function encodePng(image: Image, metadata: Readonly<Record<string, string>> = {}): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, image.width);
  header.setUint32(4, image.height);
  header.setUint8(8, EIGHT_BITS);
  header.setUint8(9, RGB);
  const texts = Object.entries(metadata).map(([key, text]) =>
    key === PARAMETERS && isLatin1(text)
      ? chunk("tEXt", latin1(`${key}\0${text}`))
      : chunk("iTXt", internationalText(key, text)),
  );
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

/**
 * The texts of a PNG file by keyword, from all its chunks tEXt, zTXt and iTXt. Damaged texts are left out. Throws UserError if
 * `data` is no PNG file.
 */
export async function readTexts(data: Bytes, subject = "picture"): Promise<Record<string, string>> {
  if (!SIGNATURE.every((byte, i) => data[i] === byte)) {
    throw new UserError(subject, "a file that is not PNG", "a PNG file", "pass the file as it was written");
  }
  const texts: Record<string, string> = {};
  for (const { type, content } of chunks(data)) {
    const end = content.indexOf(0);
    if (end < 0) continue;
    const keyword = fromLatin1(content.subarray(0, end));
    const rest = content.subarray(end + 1);
    try {
      if (type === "tEXt") texts[keyword] = fromLatin1(rest);
      else if (type === "zTXt" && rest[0] === 0) texts[keyword] = fromLatin1(await inflate(rest.subarray(1)));
      else if (type === "iTXt") {
        const language = rest.indexOf(0, 2);
        const translated = language < 0 ? -1 : rest.indexOf(0, language + 1);
        if (translated < 0) continue;
        const text = rest.subarray(translated + 1);
        texts[keyword] = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
          rest[0] ? await inflate(text) : text,
        );
      }
    } catch {
      // damaged, cut off or too large
    }
  }
  return texts;
}

/** Each chunk that is whole. */
function* chunks(data: Bytes): Generator<{ type: string; content: Bytes }> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = SIGNATURE.length; at + 8 <= data.length; ) {
    const length = view.getUint32(at);
    const content = data.subarray(at + 8, at + 8 + length);
    if (content.length === length) yield { type: fromLatin1(data.subarray(at + 4, at + 8)), content };
    at += 12 + length;
  }
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

function isLatin1(text: string): boolean {
  return [...text].every((letter) => letter <= "\xff");
}

function latin1(text: string): Bytes {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** Not TextDecoder: its latin1 is windows-1252. */
function fromLatin1(bytes: Bytes): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
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

/** Throws for damaged data, and for a text that is too long. */
async function inflate(bytes: Bytes): Promise<Bytes> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const parts: Bytes[] = [];
  let length = 0;
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    length += read.value.length;
    if (length > LARGEST_TEXT) {
      await reader.cancel();
      throw new RangeError("a text that is too large");
    }
    parts.push(read.value as Bytes);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
