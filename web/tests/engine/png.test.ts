import { inflateSync } from "node:zlib";
import { expect, test } from "vitest";
import { encodePng } from "../../src/engine/png";

interface Chunk {
  type: string;
  content: Buffer;
}

async function chunksOf(blob: Blob): Promise<Chunk[]> {
  const bytes = Buffer.from(await blob.arrayBuffer());
  const chunks: Chunk[] = [];
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    chunks.push({ type: bytes.toString("latin1", at + 4, at + 8), content: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return chunks;
}

const image = { width: 2, height: 1, data: Uint8ClampedArray.of(1, 2, 3, 255, 4, 5, 6, 255) };

test("pixels are stored as rows of RGB, width first in the header", async () => {
  const chunks = await chunksOf(await encodePng(image));
  expect(chunks.map((chunk) => chunk.type)).toEqual(["IHDR", "IDAT", "IEND"]);
  expect([...chunks[0].content]).toEqual([0, 0, 0, 2, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
  expect([...inflateSync(chunks[1].content)]).toEqual([0, 1, 2, 3, 4, 5, 6]);
});

test("metadata becomes UTF-8 text before the pixels", async () => {
  const chunks = await chunksOf(await encodePng(image, { prompt: "grün", seed: "0" }));
  expect(chunks.map((chunk) => chunk.type)).toEqual(["IHDR", "iTXt", "iTXt", "IDAT", "IEND"]);
  expect(chunks[1].content.toString("utf8")).toBe("prompt\0\0\0\0\0grün");
});

test("every chunk carries the checksum that the specification gives for an empty IEND", async () => {
  const bytes = Buffer.from(await (await encodePng(image)).arrayBuffer());
  expect(bytes.subarray(-12).toString("hex")).toBe("0000000049454e44ae426082");
});
