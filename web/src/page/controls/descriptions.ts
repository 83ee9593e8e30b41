/** Units and drawings in words. */

import type { Shape } from "../drawing/control_shape";
import type { ControlUnit } from "../state/control_unit";
import { t } from "../text";

/** What a unit's control image shows, or the ControlNet's own name. */
export function kindName({ kind, controlnet }: ControlUnit): string {
  const { kinds } = t.value;
  const known = kinds[kind.value as keyof typeof kinds];
  return kind.value === "" || known === undefined ? (known ?? controlnet.value) : known;
}

/** What a model's control images of a kind show. A ControlNet's own name stands for itself, if it says anything. */
export function kindText(kind: string): string {
  const { kinds } = t.value;
  if (/^(controlnet(_\d+)?)?$/.test(kind)) return kinds[""]; // so a build names one whose file tells nothing
  return kinds[kind as keyof typeof kinds] ?? kind;
}

/** The name that tells a unit from the others: what its control image shows, with its place among those that show the same. */
export function unitName(unit: ControlUnit, units: readonly ControlUnit[]): string {
  const name = kindName(unit);
  const alike = units.filter((other) => kindName(other) === name);
  return alike.length > 1 ? `${name} ${alike.indexOf(unit) + 1}` : name;
}

/** The content of a board, for those who do not see it. */
export function describeShape(shape: Shape): string {
  const { boardPicture, boardLines, boardNothing, boardRing, annotators } = t.value;
  if (shape.kind === "picture") {
    const { name } = shape.annotation;
    return boardPicture(name === "none" ? "" : annotators[name], shape.source.width, shape.source.height);
  }
  if (shape.kind === "strokes") return shape.strokes.some(({ erases }) => !erases) ? boardLines : boardNothing;
  const { center, radius } = shape.ring;
  return boardRing(Math.round(radius), Math.round(center.x), Math.round(center.y));
}
