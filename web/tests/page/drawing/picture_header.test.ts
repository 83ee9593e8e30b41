import { expect, test } from "vitest";
import { readHeaderSize } from "../../../src/page/drawing/picture_header";

/** The beginnings of files of 300 by 200 pixels, as Pillow 13 writes them. */
const BEGINNINGS = [
  ["PNG", "iVBORw0KGgoAAAANSUhEUgAAASwAAADICAIAAADdvUsCAAACRklEQQ=="],
  [
    "JPEG with a profile before its frame",
    "/9j/4AAQSkZJRgABAQAAAQABAAD/4QBMRXhpZgAATU0AKgAAAAgAAQEOAAIAAAApAAAAGgAAAAB4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4AAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/wAARCADIASwDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6Q==",
  ],
  [
    "progressive JPEG",
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/wgARCADIASwDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAI=",
  ],
  ["WebP", "UklGRsAAAABXRUJQVlA4ILQAAADwEACdASosAcgAPm02mkmkIyKhIA=="],
  ["lossless WebP", "UklGRiQAAABXRUJQVlA4TBgAAAAvK8ExAAdQ5CrUo/8BAEX6/58i+g=="],
  ["WebP with transparency", "UklGRuwAAABXRUJQVlA4WAoAAAAQAAAAKwEAxwAAQUxQSBIAAAABBw=="],
  ["GIF", "R0lGODdhLAHIAIIAAACZADOZAADMADPMAACZMzOZMwDMMzPMMywAAA=="],
  ["BMP", "Qk1WvwIAAAAAADYAAAAoAAAALAEAAMgAAAABABgAAAAAACC/AgDEDg=="],
  [
    "AVIF",
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAATwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAABLAAAAMgAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAV21kYXQSAAoKGCHleO0QENBoQDI/ETHh4ZlAgggnlAAAAMIRbDuB45QzTqt731pzhjJDvUCu98pAdXRfxVCChINobhuODvkCtN63+iUiHLt+kCE/",
  ],
] as const;

const fileOf = (base64: string) => new Blob([Buffer.from(base64, "base64")]);

test.each(BEGINNINGS)("the header of a %s file tells its size", async (_, base64) => {
  expect(await readHeaderSize(fileOf(base64))).toEqual({ width: 300, height: 200 });
});

test("a header of 200 megapixels is read without its pixels", async () => {
  const header = Buffer.from(BEGINNINGS[0][1], "base64");
  header.writeUInt32BE(20_000, 16);
  header.writeUInt32BE(10_000, 20);
  expect(await readHeaderSize(new Blob([header]))).toEqual({ width: 20_000, height: 10_000 });
});

test.each([
  ["text", Buffer.from("no picture at all")],
  ["nothing", Buffer.alloc(0)],
  ["a header that is cut", Buffer.from(BEGINNINGS[0][1], "base64").subarray(0, 20)],
  ["a JPEG file without a frame", Buffer.from("ffd8ffe000104a46", "hex")],
  ["a JPEG file with rubbish between its markers", Buffer.from("ffd8ffe00004000000000000000000000000", "hex")],
])("%s tells no size", async (_, content) => {
  expect(await readHeaderSize(new Blob([content]))).toBeUndefined();
});
