import { expect, test } from "vitest";
import { gigabytes } from "../../src/engine/byte_text";

test.each([
  [2.152e9, "2.2 GB"],
  [3.1e9, "3.1 GB"],
  [18.4e6, "19 MB"],
])("%d bytes are %s", (bytes, text) => {
  expect(gigabytes(bytes)).toBe(text);
});

test("another language has its own decimal point", () => {
  expect([gigabytes(12e9, "de"), gigabytes(1234.5e9, "de")]).toEqual(["12,0 GB", "1234,5 GB"]);
});
