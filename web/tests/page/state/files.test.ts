import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { readPicture } from "../../../src/page/drawing/canvas";
import { listenForFiles, openControl, openPhoto, takePicture } from "../../../src/page/state/files";
import { Studio } from "../../../src/page/state/studio";
import type { Image } from "../../../src/worker";
import { blank, stubBrowser } from "../drawing/fake_canvas";

vi.mock("../../../src/page/drawing/canvas", async (load) => ({ ...(await load<object>()), readPicture: vi.fn() }));
vi.mock("../../../src/page/annotators/annotate", () => ({ annotate: async (image: unknown) => image }));

let studio: Studio;
/** Ends the decoding of a file, by its name. */
let decoded: Map<string, (picture: Image | Error) => void>;
const file = (name: string) => new File([], name);
const sourceOnBoard = () => {
  const { shape } = studio.controls.value[0].drawing;
  return shape.kind === "picture" ? shape.source : undefined;
};

beforeEach(() => {
  stubBrowser();
  studio = new Studio();
  decoded = new Map();
  vi.mocked(readPicture).mockImplementation(
    ({ name }) =>
      new Promise((resolve, reject) =>
        decoded.set(name, (picture) => (picture instanceof Error ? reject(picture) : resolve(picture))),
      ),
  );
});

afterEach(() => vi.unstubAllGlobals());

test("a large picture that is decoded after a later one does not take its place", async () => {
  const [unit] = studio.controls.value;
  const [large, small] = [blank(300, 300), blank(200, 200)];
  const opening = [openControl(studio, unit, file("large")), openControl(studio, unit, file("small"))];
  decoded.get("small")?.(small);
  await opening[1];
  decoded.get("large")?.(large);
  await opening[0];
  expect(sourceOnBoard()).toBe(small);
});

test("a picture of the camera stays where a file is decoded after it, whose fault is not told", async () => {
  const [unit] = studio.controls.value;
  const still = blank(200, 200);
  const opening = openControl(studio, unit, file("broken"));
  takePicture(studio, unit, still);
  decoded.get("broken")?.(new Error("broken"));
  await opening;
  expect([sourceOnBoard(), studio.messages.list.value]).toEqual([still, []]);
});

test("pictures for two places do not wait for each other", async () => {
  const [unit] = studio.controls.value;
  const opening = [openControl(studio, unit, file("control")), openPhoto(studio, file("photo"))];
  decoded.get("photo")?.(blank(200, 200));
  decoded.get("control")?.(blank(300, 300));
  await Promise.all(opening);
  expect([sourceOnBoard()?.width, studio.photo.source?.width]).toEqual([300, 200]);
});

/** What a drag or the clipboard brings: a picture, a text, or both. */
const data = (types: readonly string[]) => ({ types, files: types.includes("Files") ? [file("picture")] : [] });

/** Fire an event at a field of the page, or beside all fields; returns whether the page has taken it from the browser. */
function fire(type: string, isAtField: boolean, types: readonly string[]): boolean {
  const page = new EventTarget();
  class Field extends EventTarget {
    type = "text";
  }
  vi.stubGlobal("document", page);
  vi.stubGlobal("HTMLInputElement", Field);
  for (const name of ["HTMLTextAreaElement", "Element"]) vi.stubGlobal(name, class {});
  listenForFiles(studio);
  const brought = { dataTransfer: data(types), clipboardData: data(types) };
  const event = Object.assign(new Event(type, { cancelable: true }), brought);
  Object.defineProperty(event, "target", { value: isAtField ? new Field() : page });
  return !page.dispatchEvent(event);
}

test.each<[what: string, type: string, isAtField: boolean, types: string[], opensPicture: boolean]>([
  ["a cell of a table, pasted into the prompt", "paste", true, ["text/plain", "Files"], false],
  ["a screenshot, pasted while the prompt has the focus", "paste", true, ["Files"], true],
  ["a cell of a table, pasted beside all fields", "paste", false, ["text/plain", "Files"], true],
  ["a word, dragged into the prompt", "drop", true, ["text/plain"], false],
  ["a picture, dropped on the prompt", "drop", true, ["text/uri-list", "Files"], true],
])("%s", async (_, type, isAtField, types, opensPicture) => {
  const isTaken = fire(type, isAtField, types);
  if (type === "drop") expect([isTaken, fire("dragover", isAtField, types)]).toEqual([opensPicture, opensPicture]);
  await new Promise((resolve) => setTimeout(resolve));
  expect(decoded.has("picture")).toBe(opensPicture);
});

test("a link that is dropped beside all fields does not take the place of the page", () => {
  expect(fire("drop", false, ["text/uri-list"])).toBe(true);
});
