/** The controls that change an opened picture on the board. */

import type { DrawingBoard } from "./drawing_board";
import { applyLook } from "./opened_picture";
import type { PictureShape, Shape } from "./outline";

/** Make the controls in `container` change the board's picture. Call the returned function with every new shape. */
export function linkPictureTools(container: HTMLElement, board: DrawingBoard): (shape: Shape) => void {
  const control = (name: string) => container.querySelector(`[name=${name}]`) as HTMLInputElement;
  const [edges, detail, inverted] = ["edges", "detail", "inverted"].map(control);
  let shown: PictureShape | undefined;
  container.addEventListener("input", ({ target }) => {
    if (shown === undefined) return;
    const look = { edges: edges.checked, detail: detail.valueAsNumber, inverted: inverted.checked };
    const picture = applyLook(shown.fitted, look);
    board.show({ ...shown, look, picture }, target === detail ? detail : undefined);
  });
  return (shape) => {
    container.hidden = shape.kind !== "picture";
    shown = shape.kind === "picture" ? shape : undefined;
    if (shown === undefined) return;
    edges.checked = shown.look.edges;
    detail.valueAsNumber = shown.look.detail;
    detail.disabled = !shown.look.edges;
    inverted.checked = shown.look.inverted;
  };
}
