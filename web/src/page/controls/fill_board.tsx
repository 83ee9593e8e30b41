/** A button that paints the whole board with what the brush paints. */

import type { ControlUnit } from "../state/control_unit";
import { t } from "../text";

export function FillBoard({ unit }: { unit: ControlUnit }) {
  return (
    <button type="button" title={t.value.fillBoardHelp} onClick={() => unit.drawing.fill()}>
      {t.value.fillBoard}
    </button>
  );
}
