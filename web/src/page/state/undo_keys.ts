/** Ctrl+Z and Ctrl+Shift+Z, for the drawing that changed last. */

import { effect } from "@preact/signals";
import type { Studio } from "./studio";

export function listenForUndo(studio: Studio): void {
  const drawings = () => [studio.photo, ...studio.controls.value.map(({ drawing }) => drawing)];
  let last = studio.controls.peek()[0]?.drawing as ReturnType<typeof drawings>[number] | undefined;
  const seen = new WeakMap<object, unknown>();
  effect(() => {
    for (const drawing of drawings()) {
      const now = drawing.changes.value;
      if (seen.has(drawing) && seen.get(drawing) !== now) last = drawing;
      seen.set(drawing, now);
    }
  });
  document.addEventListener("keydown", (event) => {
    const isText =
      event.target instanceof HTMLTextAreaElement ||
      (event.target instanceof HTMLInputElement && !["radio", "checkbox", "range"].includes(event.target.type));
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || isText || (key !== "z" && key !== "y")) return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) last?.redo();
    else (last?.canUndo ? last : drawings().find(({ canUndo }) => canUndo))?.undo();
  });
}
