/** The controls of the photo that an inpainting model repaints. */

import type { Image } from "../worker";
import type { RepaintBoard } from "./repaint_board";

export interface RepaintCardListener {
  /** A file was chosen as the picture to repaint. */
  onFile(file: File): void;
  /** The visitor asked for the picture's edges on the drawing board. */
  onOutline(picture: Image): void;
  /** The picture or the mask changed. */
  onChange(): void;
}

/** Make the controls in `card` work on the board. */
export function linkRepaintCard(card: HTMLElement, board: RepaintBoard, listener: RepaintCardListener): void {
  const find = <T extends HTMLElement>(selector: string) => card.querySelector(selector) as T;
  const file = find<HTMLInputElement>("#photo-file");
  const brushWidth = find<HTMLInputElement>("#brush-width");
  const undoButton = find<HTMLButtonElement>("#undo-brush");
  const clearButton = find<HTMLButtonElement>("#clear-mask");
  const allButton = find<HTMLButtonElement>("#mask-all");
  const outlineButton = find<HTMLButtonElement>("#outline-photo");
  const choose = () => file.click();
  const radios = [...card.querySelectorAll<HTMLInputElement>("input[name=brush]")];
  const readTools = () => {
    board.brushWidth = brushWidth.valueAsNumber;
    board.erases = radios.some(({ checked, value }) => checked && value === "rub");
  };
  readTools(); // after a reload, a browser may restore the visitor's choice
  board.onChange = () => {
    find(".placeholder").hidden = board.image !== undefined;
    outlineButton.disabled = clearButton.disabled = allButton.disabled = board.image === undefined;
    undoButton.disabled = !board.canUndo;
    listener.onChange();
  };
  undoButton.addEventListener("click", () => board.undo());
  clearButton.addEventListener("click", () => board.clearMask());
  allButton.addEventListener("click", () => board.maskAll());
  outlineButton.addEventListener("click", () => board.source && listener.onOutline(board.source));
  for (const control of [brushWidth, ...radios]) control.addEventListener("input", readTools);
  find("#open-photo").addEventListener("click", choose);
  find("#photo").addEventListener("click", () => board.image === undefined && choose());
  file.addEventListener("change", () => {
    const chosen = file.files?.[0];
    if (chosen !== undefined) listener.onFile(chosen);
    file.value = ""; // the same file can be chosen again
  });
}
