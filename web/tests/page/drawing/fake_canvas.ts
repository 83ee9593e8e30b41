/** What boards need of a browser: canvases without pixels, and pointers. */

import { vi } from "vitest";
import type { Image } from "../../../src/engine";

/** Anything can be called on it; what is asked for as pixels is black. */
const context = new Proxy({} as Record<string, unknown>, {
  get: (_, name) => {
    if (name === "canvas") return { width: 64, height: 48 };
    return name === "getImageData" ? (_x: number, _y: number, w: number, h: number) => blank(w, h) : () => {};
  },
  set: () => true,
});

export function blank(width: number, height: number): Image {
  return { width, height, data: new Uint8ClampedArray(4 * width * height) };
}

/** An element of 64 by 48 on the page, and as many pixels. */
export class FakeCanvas extends EventTarget {
  width = 64;
  height = 48;
  clientWidth = 64;
  getContext = () => context;
  focus = () => {};
  setPointerCapture = () => {};
  getBoundingClientRect = () => ({ left: 0, top: 0, width: 64, height: 48 });

  press(...keys: string[]): void {
    for (const key of keys) this.dispatchEvent(Object.assign(new Event("keydown", { cancelable: true }), { key }));
  }

  point(type: string, pointerId: number, clientX: number, clientY: number): void {
    this.dispatchEvent(Object.assign(new Event(type), { pointerId, clientX, clientY, button: 0 }));
  }
}

/** Returns how many canvases pixels were copied to since; call vi.unstubAllGlobals after the test. */
export function stubBrowser(): () => number {
  let copies = 0;
  vi.stubGlobal("devicePixelRatio", 1);
  vi.stubGlobal("document", { activeElement: undefined });
  vi.stubGlobal(
    "ResizeObserver",
    class {
      observe() {}
      disconnect() {}
    },
  );
  vi.stubGlobal("ImageData", class {});
  vi.stubGlobal(
    "OffscreenCanvas",
    class {
      getContext() {
        copies++;
        return context;
      }
    },
  );
  return () => copies;
}
