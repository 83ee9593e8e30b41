/** Buttons that put a sample on the board. */

import { drawShape } from "../drawing/control_shape";
import { PictureView } from "../drawing/picture_view";
import { SAMPLES } from "../drawing/samples";
import type { ControlUnit } from "../state/control_unit";
import { t } from "../text";

const SIDE = 48;

const THUMBNAILS = SAMPLES.map(([x, y, radius]) => {
  const ring = { center: { x: SIDE * x, y: SIDE * y }, radius: SIDE * radius };
  return drawShape({ kind: "ring", ring }, { width: SIDE, height: SIDE });
});

export function SampleList({ unit }: { unit: ControlUnit }) {
  return (
    <fieldset class="samples">
      <legend class="visually-hidden">{t.value.samples}</legend>
      {SAMPLES.map((sample, i) => (
        <button
          key={sample.join()}
          type="button"
          aria-label={t.value.sample(i + 1)}
          onClick={() => unit.drawing.showRing(...sample)}
        >
          <PictureView image={THUMBNAILS[i]} label="" />
        </button>
      ))}
    </fieldset>
  );
}
