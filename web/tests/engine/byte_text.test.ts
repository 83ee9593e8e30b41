import { expect, test } from "vitest";
import { gigabytes } from "../../src/engine/byte_text";

test.each([
  [2.152e9, "2.2 GB"],
  [3.1e9, "3.1 GB"],
  [18.4e6, "19 MB"],
])("%d bytes are %s", (bytes, text) => {
  expect(gigabytes(bytes)).toBe(text);
});
