/** An annotator of the visitor's own: its file, and how it wants its pictures. */

import { type Annotation, parameterOf } from "../annotators/annotation";
import { onnxModels, openOnnx } from "../annotators/onnx_models";
import { SCALINGS } from "../annotators/onnx_tensors";
import type { ControlUnit } from "../state/control_unit";
import type { Messages } from "../state/messages";
import { t } from "../text";
import { Select, Slider } from "../widgets/fields";
import { OpenFile } from "../widgets/open_file";

interface OnnxProps {
  readonly unit: ControlUnit;
  readonly messages: Messages;
  readonly annotation: Annotation;
  readonly onChange: (annotation: Annotation, gesture?: string) => void;
}

export function OnnxFields({ unit, messages, annotation, onChange }: OnnxProps) {
  const model = onnxModels.value.find(({ id }) => id === parameterOf(annotation, "model"));
  const set = (change: Record<string, number>, gesture?: string) =>
    onChange({ ...annotation, parameters: { ...annotation.parameters, ...change } }, gesture);
  const open = async (file: File) => {
    messages.clearAt(unit.id);
    try {
      set({ model: (await openOnnx(file)).id });
    } catch (error) {
      messages.error(error, unit.id);
    }
  };
  const { width, height } = model?.input ?? {};
  return (
    <>
      <div class="row">
        <OpenFile label={t.value.openOnnx} accept=".onnx" onFile={(file) => void open(file)} />
        <p class="onnx-name">{model?.name ?? t.value.noOnnx}</p>
      </div>
      {model !== undefined && (
        <Select
          label={t.value.onnxScaling}
          options={SCALINGS}
          text={(name) => t.value.onnxScalings[name]}
          value={SCALINGS[parameterOf(annotation, "scaling")]}
          onChange={(name) => set({ scaling: SCALINGS.indexOf(name) })}
        />
      )}
      {model !== undefined && (width === undefined || height === undefined) && (
        <Slider
          label={t.value.onnxSide}
          min={128}
          max={1024}
          step={32}
          unit=" px"
          value={parameterOf(annotation, "side")}
          onInput={(side) => set({ side }, "onnx side")}
        />
      )}
    </>
  );
}
