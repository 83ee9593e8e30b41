import { beforeEach, expect, test, vi } from "vitest";
import { addOwnModel, modelsOf, readCatalogue, removeOwnModel } from "../../../src/page/models/catalogue";

let kept: Map<string, string>;
let answer: Response | Error;

const ENTRY = {
  path: "bundles/sd15/",
  name: "sd15",
  picture: "pictures/sd15.png",
  kinds: ["canny", "depth"],
  sizes: [[512, 512]],
  bytes: 2e9,
  memory_bytes: { resident: 3e9, reduced: 2e9 },
  needs: ["shader-f16"],
  steps: 20,
  inpaints: false,
  licence: "CreativeML Open RAIL-M",
  mirrors: ["https://mirror.example/sd15/"],
};

beforeEach(() => {
  kept = new Map();
  answer = Response.json({ format: 1, models: [ENTRY] });
  vi.stubGlobal("location", new URL("https://site.example/demo/"));
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
  });
  vi.stubGlobal("fetch", async () => {
    if (answer instanceof Error) throw answer;
    return answer;
  });
});

test("the list's models are read as the build writes them", async () => {
  expect(await readCatalogue()).toEqual([
    {
      url: "./bundles/sd15/",
      name: "sd15",
      picture: "pictures/sd15.png",
      kinds: ["canny", "depth"],
      sizes: [[512, 512]],
      bytes: 2e9,
      memoryBytes: { resident: 3e9, reduced: 2e9 },
      needs: ["shader-f16"],
      steps: 20,
      licence: "CreativeML Open RAIL-M",
      mirrors: ["https://mirror.example/sd15/"],
      isOwn: false,
    },
  ]);
});

test.each([
  ["no list", () => new Response(null, { status: 404 })],
  ["a list of nothing", () => Response.json({ format: 1, models: [] })],
  ["a list of another format", () => Response.json({ format: 2, models: [ENTRY] })],
  ["a page in its place", () => new Response("<!doctype html>")],
  ["no network", () => new TypeError("Failed to fetch")],
])("a site with %s has the bundle beside the page", async (_, make) => {
  answer = make();
  expect((await readCatalogue()).map(({ url }) => url)).toEqual(["./bundle/"]);
});

test("what an entry lacks is unknown, and an entry without a folder is none", () => {
  const [model, ...others] = modelsOf({ format: 1, models: [{ path: "a/", name: "a", kinds: [1] }, { name: "b" }, 7] });
  expect(model).toMatchObject({ url: "./a/", kinds: [], bytes: 0, memoryBytes: undefined, steps: undefined });
  expect(others).toEqual([]);
});

test("the visitor's own models are there at the next visit, until they are removed", async () => {
  addOwnModel("https://site.example/mine/", "mine");
  addOwnModel("https://site.example/mine/", "mine again");
  expect((await readCatalogue()).map(({ name, isOwn }) => [name, isOwn])).toEqual([
    ["sd15", false],
    ["mine again", true],
  ]);
  answer = Response.json({ format: 1, models: [ENTRY] });
  removeOwnModel("https://site.example/mine/");
  expect((await readCatalogue()).map(({ name }) => name)).toEqual(["sd15"]);
});

test("a browser that keeps nothing still has the site's models", async () => {
  const refuse = () => {
    throw new DOMException("denied", "SecurityError");
  };
  vi.stubGlobal("localStorage", { getItem: refuse, setItem: refuse });
  expect(addOwnModel("./mine/", "mine").isOwn).toBe(true);
  expect((await readCatalogue()).map(({ name }) => name)).toEqual(["sd15"]);
});
