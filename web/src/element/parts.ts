/** What `<control-net>` is made of. */

export const STYLE = `
  :host { display: inline-grid; grid-template-columns: 1fr 1fr; gap: .5rem; max-width: 40rem; font: inherit }
  canvas { width: 100%; min-width: 0; background: black; touch-action: none }
  [part=prompt], [part=status] { grid-column: 1 / -1; font: inherit; min-height: 1.4em; margin: 0 }
  button { font: inherit }
`;

/** An element with a name for `::part()`. */
export function part<K extends "button" | "canvas" | "input" | "p">(
  tag: K,
  name: string,
  properties: Partial<HTMLElementTagNameMap[K]>,
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.setAttribute("part", name);
  return element;
}

export function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  return canvas.getContext("2d") as CanvasRenderingContext2D;
}
