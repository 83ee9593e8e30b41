import { expect, test } from "vitest";
import {
  absentMeans,
  boolean,
  integer,
  list,
  mapping,
  number,
  parseJson,
  record,
  string,
} from "../../src/engine/json_record";

const parse = record({ name: string, sizes: list(integer), scores: mapping(number) });
const sound = { name: "a", sizes: [1, 2], scores: { b: 0.5 } };

test("a record that fits is returned as it is", () => {
  expect(parse(sound, "x")).toEqual(sound);
});

test.each([
  ["a list in place of a record", [], "x: got [], wanted an object"],
  ["nothing in place of a record", null, "x: got null, wanted an object"],
  ["a missing key", { name: "a", sizes: [] }, "x: got no scores, wanted every key of the format"],
  ["an unknown key", { ...sound, extra: 1 }, "x: got unknown extra, wanted only the keys of the format"],
  ["a number in place of a string", { ...sound, name: 1 }, "x.name: got 1, wanted a string"],
  ["a fraction in place of an integer", { ...sound, sizes: [1, 0.5] }, "x.sizes[1]: got 0.5, wanted an integer"],
  ["a string in place of a number", { ...sound, scores: { b: "1" } }, 'x.scores.b: got "1", wanted a number'],
  ["an object in place of a list", { ...sound, sizes: {} }, "x.sizes: got {}, wanted a list"],
])("%s is refused with its place", (_, value, complaint) => {
  expect(() => parse(value, "x")).toThrow(complaint);
});

test("a key that older files lack is absent, or as good as any other", () => {
  const grown = record({ name: string, shuffles: absentMeans(false, boolean) });
  expect(grown({ name: "old" }, "x")).toEqual({ name: "old", shuffles: false });
  expect(grown({ name: "new", shuffles: true }, "x")).toEqual({ name: "new", shuffles: true });
  expect(() => grown({ shuffles: true }, "x")).toThrow("x: got no name, wanted every key of the format");
  expect(() => grown({ name: "new", shuffles: 1 }, "x")).toThrow("x.shuffles: got 1, wanted true or false");
});

test("a long value is shown by its beginning", () => {
  expect(() => string(Array(100).fill(1), "x")).toThrow(/^x: got \[1,1.{53}\.\.\., wanted a string/);
});

test("bytes that are no UTF-8 are refused", () => {
  expect(() => parseJson(Uint8Array.of(0x22, 0xff, 0x22), "x.json", "sizes")).toThrow(
    /^x.json: got text that is not JSON/,
  );
});
