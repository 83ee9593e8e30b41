/** What can be made of an opened picture: its edges, with more or less detail, or the picture with black and white exchanged. */

import type { Image } from "../worker";
import { coverSize } from "./canvas";
import type { DrawingBoard } from "./drawing_board";
import { findEdges } from "./edges";
import { invert, type Look, type PictureShape, type Shape } from "./outline";

const DETAIL = 0.5;

type Size = Pick<Image, "width" | "height">;

/** A picture as it comes onto the board; its edges are found at the board's size. */
export function openedPicture(source: Image, edges: boolean, size: Size): PictureShape {
  return withLook(source, { edges, detail: DETAIL, inverted: false }, size);
}

function withLook(source: Image, look: Look, { width, height }: Size): PictureShape {
  const lines = look.edges ? findEdges(coverSize(source, width, height), look.detail) : source;
  return { kind: "picture", source, look, picture: look.inverted ? invert(lines) : lines };
}

/** Make the controls in `container` change the picture on the board. Call what is returned with every new shape. */
export function linkPictureTools(container: HTMLElement, board: DrawingBoard): (shape: Shape) => void {
  const control = (name: string) => container.querySelector(`[name=${name}]`) as HTMLInputElement;
  const [edges, detail, inverted] = ["edges", "detail", "inverted"].map(control);
  let source: Image | undefined;
  container.addEventListener("input", ({ target }) => {
    if (source === undefined) return;
    const look = { edges: edges.checked, detail: detail.valueAsNumber, inverted: inverted.checked };
    board.show(withLook(source, look, board.size), target === detail ? detail : undefined);
  });
  return (shape) => {
    container.hidden = shape.kind !== "picture";
    source = shape.kind === "picture" ? shape.source : undefined;
    if (shape.kind !== "picture") return;
    edges.checked = shape.look.edges;
    detail.valueAsNumber = shape.look.detail;
    detail.disabled = !shape.look.edges;
    inverted.checked = shape.look.inverted;
  };
}
