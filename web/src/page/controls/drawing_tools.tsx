/** The tools of a board: what draws, and how wide. */

import type { ControlUnit } from "../state/control_unit";
import { t } from "../text";
import { Segments, Slider } from "../widgets/fields";

export function DrawingTools({ unit }: { unit: ControlUnit }) {
  const { drawing, tools } = unit;
  const { tool, lineWidth } = drawing;
  return (
    <div class="tools">
      <Segments
        label={t.value.tool}
        hidesLabel
        options={tools}
        text={(name) => t.value.tools[name]}
        value={tool.value}
        onChange={(name) => drawing.setTool(name)}
      />
      {tool.value !== "ring" && tool.value !== "area" && (
        <Slider
          label={t.value.lineWidth}
          min={0.5}
          max={Math.max(16, Math.round(drawing.size.width / 8))}
          step={0.5}
          unit=" px"
          value={lineWidth.value}
          onInput={(width) => {
            lineWidth.value = width;
          }}
        />
      )}
    </div>
  );
}
