/** One control unit: its ControlNet, its board, and how it counts. */

import { encodePng } from "../../worker";
import { CameraButton } from "../camera/camera_button";
import { BoardView } from "../drawing/board_view";
import { saveFile } from "../drawing/canvas";
import { PictureView } from "../drawing/picture_view";
import type { ControlUnit } from "../state/control_unit";
import { openControl, takePicture } from "../state/files";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { Checkbox, Select } from "../widgets/fields";
import { MessageList } from "../widgets/message_list";
import { OpenFile } from "../widgets/open_file";
import { UndoButtons } from "../widgets/undo_buttons";
import { AnnotatorFields } from "./annotator_fields";
import { BrushColor } from "./brush_color";
import { ClassPalette } from "./class_palette";
import { describeShape, unitName } from "./descriptions";
import { DrawingTools } from "./drawing_tools";
import { SampleList } from "./sample_list";
import { StrengthFields } from "./strength_fields";

interface UnitProps {
  readonly studio: Studio;
  readonly unit: ControlUnit;
  /** Counted from 1. */
  readonly number: number;
}

export function UnitCard({ studio, unit, number }: UnitProps) {
  const { drawing, enabled } = unit;
  const title = `unit-${unit.id}-title`;
  const hint = `unit-${unit.id}-hint`;
  const isPicture = drawing.shape.kind === "picture";
  return (
    <section class={enabled.value ? "card unit" : "card unit off"} aria-labelledby={title} data-drop={unit.id}>
      <div class="card-head">
        <h2 id={title}>{unitName(unit, studio.controls.value)}</h2>
        <UndoButtons drawing={drawing} undoLabel={t.value.undo} redoLabel={t.value.redo} />
        {studio.canSwitch(unit) && (
          <Checkbox
            label={t.value.enabled}
            checked={enabled.value}
            onChange={(on) => {
              enabled.value = on;
            }}
          />
        )}
        {studio.controls.value.length > 1 && (
          <button type="button" class="quiet" onClick={() => studio.removeControl(unit)}>
            {t.value.removeControl}
          </button>
        )}
      </div>
      <ControlNetChoice studio={studio} unit={unit} />
      <DrawingTools unit={unit} />
      <ClassPalette unit={unit} />
      <BrushColor unit={unit} />
      <BoardView
        drawing={drawing}
        id={`board-${unit.id}`}
        label={t.value.board(number, describeShape(drawing.shape))}
        describedBy={hint}
      />
      <Hint unit={unit} id={hint} />
      <div class="row">
        <SampleList studio={studio} unit={unit} />
        <div class="buttons">
          <OpenFile label={t.value.open} onFile={(file) => void openControl(studio, unit, file)} />
          <CameraButton
            onPicture={(picture) => takePicture(studio, unit, picture)}
            onError={(error) => studio.messages.error(error, unit.id)}
          />
          <button type="button" onClick={() => void save(unit)}>
            {t.value.save}
          </button>
          <button type="button" onClick={() => drawing.clear()}>
            {t.value.clear}
          </button>
        </div>
      </div>
      <MessageList messages={studio.messages} place={unit.id} />
      {isPicture && <AnnotatorFields unit={unit} messages={studio.messages} />}
      <ModelGets unit={unit} />
      <StrengthFields unit={unit} />
    </section>
  );
}

/** Which ControlNet of the bundle the unit uses, where there are several. */
function ControlNetChoice({ studio, unit }: { studio: Studio; unit: ControlUnit }) {
  const all = studio.manifest.value?.controlnets ?? [];
  if (all.length < 2) return null;
  const free = new Set(studio.unusedControlnets.map(({ name }) => name)).add(unit.controlnet.value);
  const names = all.map(({ name }) => name).filter((name) => free.has(name));
  const use = (chosen: string) => {
    const entry = all.find(({ name }) => name === chosen);
    if (entry !== undefined) unit.use(entry);
  };
  return (
    <Select
      label={t.value.controlnet}
      options={names}
      text={(name) => name}
      value={unit.controlnet.value}
      onChange={use}
    />
  );
}

/** How to use the board, with a pointer or, while it has the focus, with keys. */
function Hint({ unit, id }: { unit: ControlUnit; id: string }) {
  const { drawing } = unit;
  const tool = drawing.tool.value;
  const { scribbleHint, colorHint, toolHints } = t.value;
  const hints: Readonly<Record<string, string>> = { scribble: scribbleHint, color: colorHint };
  const pen = drawing.isDrawingByKeys ? t.value.penDown : t.value.penUp;
  return (
    <p class="hint" id={id}>
      <span class="mouse">
        {(tool === "pencil" && hints[unit.kind.value]) || toolHints[tool]}
        <span class="drop">{t.value.orDrop}</span>.
      </span>
      <span class="keys">
        {tool === "ring" ? t.value.toolKeys.ring : t.value.toolKeys.brush}
        {tool !== "ring" && <b aria-live="polite"> {pen}.</b>}
      </span>
    </p>
  );
}

/** The control image, pixel by pixel. */
function ModelGets({ unit }: { unit: ControlUnit }) {
  const { width, height } = unit.drawing.size;
  const { isBusy } = unit.drawing;
  return (
    <div class="model-gets">
      <PictureView image={unit.drawing.image.value} label={t.value.modelGets} />
      <p>
        {t.value.modelGets}
        <br />
        <small>{isBusy ? t.value.annotating : `${width} × ${height}`}</small>
      </p>
    </div>
  );
}

async function save({ drawing }: ControlUnit): Promise<void> {
  saveFile(await encodePng(await drawing.controlImage()), "outline.png");
}
