/** What the brush paints on a board of colours. */

import { fromHex, toHex } from "../drawing/marks";
import type { ControlUnit } from "../state/control_unit";
import { t } from "../text";
import { FillBoard } from "./fill_board";

export function BrushColor({ unit }: { unit: ControlUnit }) {
  const { color } = unit.drawing;
  if (unit.kind.value !== "color" || color.value === undefined) return null;
  return (
    <div class="row">
      <label>
        {t.value.brushColor}{" "}
        <input
          type="color"
          value={toHex(color.value)}
          onInput={({ currentTarget }) => {
            color.value = fromHex(currentTarget.value);
          }}
        />
      </label>
      <FillBoard unit={unit} />
    </div>
  );
}
