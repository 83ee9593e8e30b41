/** Buttons that put a sample on the board. */

import { useMemo } from "preact/hooks";
import { PictureView } from "../drawing/picture_view";
import { samplesFor } from "../samples/samples";
import type { ControlUnit } from "../state/control_unit";
import type { Studio } from "../state/studio";
import { t } from "../text";

const SIDE = 48;

export function SampleList({ studio, unit }: { studio: Studio; unit: ControlUnit }) {
  const { drawing, kind, annotators } = unit;
  const isOneRing = drawing.isOneRing.value;
  const samples = samplesFor(kind.value, isOneRing);
  const thumbnails = useMemo(
    () => samples.map((sample) => sample.thumbnail({ width: SIDE, height: SIDE })),
    [kind.value, isOneRing],
  );
  return (
    <fieldset class="samples">
      <legend class="visually-hidden">{t.value.samples}</legend>
      {samples.map((sample, i) => (
        <button
          key={`${kind.value} ${i}`}
          type="button"
          aria-label={t.value.sample(i + 1, sample.subject)}
          onClick={() => {
            drawing.show(sample.shape(drawing.size, annotators[0]));
            studio.suggestPrompt(sample.subject);
          }}
        >
          <PictureView image={thumbnails[i]} label="" />
        </button>
      ))}
    </fieldset>
  );
}
