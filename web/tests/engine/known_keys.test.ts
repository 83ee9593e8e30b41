import { expect, test } from "vitest";
import { checkKeys } from "../../src/engine/known_keys";

const keys = ["steps", "seed"];

test("an object of known keys passes, whatever their values", () => {
  expect(() => checkKeys("request", { seed: undefined }, keys)).not.toThrow();
});

test.each(["stpes", "Seed", "toString"])("%s is refused with the keys that there are", (wrong) => {
  expect(() => checkKeys("request", { seed: 1, [wrong]: 4 }, keys)).toThrow(
    `key of the request: got '${wrong}', wanted one of steps, seed; rename it or leave it out`,
  );
});

test.each([
  ["./bundle/", "./bundle/"],
  [undefined, "undefined"],
  [null, "null"],
])("%s is not an object", (given, shown) => {
  expect(() => checkKeys("options", given, keys)).toThrow(
    `options: got ${shown}, wanted an object; pass for example { steps: … }`,
  );
});
