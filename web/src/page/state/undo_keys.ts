/** Ctrl+Z and Ctrl+Shift+Z, for the drawing that changed last. */

import { effect } from "@preact/signals";
import type { Studio } from "./studio";
import { isTextField } from "./text_field";

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
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || isTextField(event.target) || (key !== "z" && key !== "y")) return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) last?.redo();
    else (last?.canUndo ? last : drawings().find(({ canUndo }) => canUndo))?.undo();
  });
}
