import { IDBFactory } from "fake-indexeddb";
import "fake-indexeddb/auto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Gallery, type KeptPicture } from "../../../src/page/state/gallery";

/** The tabs of a visitor: closed with the test, which else waits for what they may yet tell. */
const channels: BroadcastChannel[] = [];
class Channel extends BroadcastChannel {
  constructor(name: string) {
    super(name);
    channels.push(this);
  }
}

afterEach(() => {
  for (const channel of channels.splice(0)) channel.close();
  vi.restoreAllMocks();
});

beforeEach(() => {
  vi.stubGlobal("location", new URL("https://site.example/demo/#prompt=gold"));
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.stubGlobal("BroadcastChannel", Channel);
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

test("a second tab shows what the first one adds and removes, in the same order, and keeps its own picture", async () => {
  const [tab, other] = [new Gallery(), new Gallery()];
  await Promise.all([tab.open(), other.open()]);
  await tab.add(picture(1));
  await vi.waitUntil(() => seeds(other).length === 1);
  const shown = other.pictures.value[0];
  expect(await shown.png.text()).toBe("1");
  await Promise.all([other.add(picture(2)), tab.add(picture(3))]);
  await vi.waitUntil(() => seeds(tab).length === 3 && seeds(other).length === 3);
  expect(other.pictures.value.map(({ id }) => id)).toEqual([3, 2, 1]);
  expect(tab.pictures.value.map(({ id }) => id)).toEqual([3, 2, 1]);
  expect(other.pictures.value[2]).toBe(shown); // it is not drawn anew
  await other.remove(2);
  await vi.waitUntil(() => seeds(tab).length === 2);
  expect(tab.pictures.value.map(({ id }) => id)).toEqual([3, 1]);
});

test("a tab that opens while another adds a picture shows it once", async () => {
  const tab = new Gallery();
  await tab.open();
  const other = new Gallery();
  await Promise.all([tab.add(picture(1)), other.open(), tab.add(picture(2))]);
  await tab.add(picture(3));
  await vi.waitUntil(() => seeds(other)[0] === 3);
  expect(seeds(other)).toEqual([3, 2, 1]);
});

test("a tab whose pictures are not kept keeps them when another tab removes one of its own", async () => {
  const [tab, other] = [new Gallery(), new Gallery()];
  await Promise.all([tab.open(), other.open()]);
  for (const gallery of [tab, other]) {
    vi.spyOn(IDBObjectStore.prototype, "add").mockImplementationOnce(() => {
      throw new DOMException("full", "QuotaExceededError");
    });
    await gallery.add(picture(1));
  }
  expect(other.pictures.value[0].id).toBe(tab.pictures.value[0].id); // each tab counts for itself
  await tab.remove(tab.pictures.value[0].id);
  await tab.add(picture(2));
  await vi.waitUntil(() => seeds(other).length > 1);
  expect(seeds(other)).toEqual([1, 2]);
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
