/** The annotator of a unit's picture, its parameters, and how the picture fits. */

import { type AnnotatorName, annotationOf, PARAMETERS, parameterOf } from "../annotators/annotation";
import type { PictureShape } from "../drawing/control_shape";
import { FITS } from "../drawing/fit";
import type { ControlUnit } from "../state/control_unit";
import type { Messages } from "../state/messages";
import { t } from "../text";
import { Checkbox, Segments, Select, Slider } from "../widgets/fields";
import { OnnxFields } from "./onnx_fields";

export function AnnotatorFields({ unit, messages }: { unit: ControlUnit; messages: Messages }) {
  const { drawing } = unit;
  const { shape } = drawing;
  if (shape.kind !== "picture") return null;
  const { annotation } = shape;
  const show = (change: Partial<PictureShape>, gesture?: string) => drawing.show({ ...shape, ...change }, gesture);
  const choose = (name: AnnotatorName) =>
    show({ annotation: { ...annotationOf(name, drawing.size), inverted: annotation.inverted } });
  return (
    <div class="annotator">
      <Select
        label={t.value.annotator}
        options={unit.annotators}
        text={(name) => t.value.annotators[name]}
        value={annotation.name}
        onChange={choose}
        help={t.value.annotatorHelp[annotation.name]}
      />
      {annotation.name === "onnx" && (
        <OnnxFields
          unit={unit}
          messages={messages}
          annotation={annotation}
          onChange={(annotation, gesture) => show({ annotation }, gesture)}
        />
      )}
      {Object.entries(annotation.name === "onnx" ? {} : PARAMETERS[annotation.name]).map(
        ([name, { min, max, step }]) => (
          <Slider
            key={name}
            label={t.value.parameters[name as keyof typeof t.value.parameters]}
            min={min}
            max={max}
            step={step}
            value={parameterOf(annotation, name)}
            onInput={(value) =>
              show(
                { annotation: { ...annotation, parameters: { ...annotation.parameters, [name]: value } } },
                `${annotation.name} ${name}`, // one drag of the slider is one change to undo
              )
            }
          />
        ),
      )}
      <Checkbox
        label={t.value.invert}
        title={t.value.invertHelp}
        checked={annotation.inverted}
        onChange={(inverted) => show({ annotation: { ...annotation, inverted } })}
      />
      <Segments
        label={t.value.fit}
        options={FITS}
        text={(fit) => t.value.fits[fit]}
        value={shape.fit}
        onChange={(fit) => show({ fit })}
        help={t.value.fitHelp[shape.fit]}
      />
    </div>
  );
}
