import { IDBFactory } from "fake-indexeddb";
import "fake-indexeddb/auto";
import { beforeEach, expect, test, vi } from "vitest";
import { Gallery, type KeptPicture } from "../../../src/page/state/gallery";

beforeEach(() => {
  vi.stubGlobal("location", new URL("https://site.example/demo/#prompt=gold"));
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.stubGlobal("navigator", { storage: { estimate: async () => ({ usage: 10, quota: 100 }) } });
});

function picture(seed: number): Omit<KeptPicture, "id"> {
  const settings = { prompt: "gold", seed } as KeptPicture["settings"];
  return { created: seed, png: new Blob([String(seed)]), settings, model: "circles", controls: [] };
}

const seeds = (gallery: Gallery) => gallery.pictures.value.map(({ settings }) => settings.seed);

test("pictures are there again after a reload, the newest first", async () => {
  const gallery = new Gallery();
  await gallery.open();
  for (const seed of [1, 2, 3]) await gallery.add(picture(seed));
  expect(seeds(gallery)).toEqual([3, 2, 1]);
  await gallery.remove(gallery.pictures.value[1].id);
  const again = new Gallery();
  await again.open();
  expect(seeds(again)).toEqual([3, 1]);
  expect(again.pictures.value.every(({ id }) => id > 0)).toBe(true);
  expect(again.room.value).toEqual({ usage: 10, quota: 100 });
});

test("another site of the same origin has pictures of its own", async () => {
  const gallery = new Gallery();
  await gallery.open();
  await gallery.add(picture(1));
  vi.stubGlobal("location", new URL("https://site.example/other/"));
  const other = new Gallery();
  await other.open();
  expect(seeds(other)).toEqual([]);
});

test("a browser that forbids IndexedDB shows the pictures of this visit, and says so", async () => {
  const refuse = () => {
    throw new DOMException("denied", "SecurityError");
  };
  vi.stubGlobal("indexedDB", { open: refuse });
  const gallery = new Gallery();
  await gallery.open();
  expect(gallery.trouble.value).toBe("forbidden");
  await gallery.add(picture(1));
  await gallery.add(picture(2));
  expect(seeds(gallery)).toEqual([2, 1]);
  const [newest, oldest] = gallery.pictures.value;
  expect(newest.id).not.toBe(oldest.id);
  await gallery.remove(newest.id);
  expect(seeds(gallery)).toEqual([1]);
});

test("where the storage is full, the picture is shown and the visitor is told, until there is room", async () => {
  const gallery = new Gallery();
  await gallery.open();
  await gallery.add(picture(1));
  const { add } = IDBObjectStore.prototype;
  vi.spyOn(IDBObjectStore.prototype, "add").mockImplementationOnce(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  await gallery.add(picture(2));
  expect(seeds(gallery)).toEqual([2, 1]);
  expect(gallery.trouble.value).toBe("full");
  expect(IDBObjectStore.prototype.add).not.toBe(add);
  await gallery.remove(gallery.pictures.value[1].id);
  expect(gallery.trouble.value).toBeUndefined();
  await gallery.add(picture(3));
  expect(seeds(gallery)).toEqual([3, 2]);
});
