import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { readPicture } from "../../../src/page/drawing/canvas";
import { openControl, openPhoto, takePicture } from "../../../src/page/state/files";
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
