/** The photo of img2img and inpainting, with the mask's brush. */

import { IMAGE_STRENGTH } from "../../worker";
import { CameraButton } from "../camera/camera_button";
import { BoardView } from "../drawing/board_view";
import { openPhoto, placeOnBoard, takePicture } from "../state/files";
import type { Mode, Studio } from "../state/studio";
import { t } from "../text";
import { Checkbox, NumberField, Segments, Select, Slider } from "../widgets/fields";
import { MessageList } from "../widgets/message_list";
import { OpenFile } from "../widgets/open_file";
import { UndoButtons } from "../widgets/undo_buttons";

const BRUSHES = ["paint", "rub"] as const;
const CONTENTS = ["original", "fill", "latent noise", "latent nothing"] as const;

export function PhotoCard({ studio }: { studio: Studio }) {
  const { photo, request } = studio;
  const mode = request.mode.value;
  const isMasked = mode === "inpaint";
  const hasPhoto = photo.image !== undefined;
  const firstUnit = studio.controls.value[0];
  return (
    <section class="card photo" aria-labelledby="photo-title" data-drop="photo">
      <div class="card-head">
        <h2 id="photo-title">{t.value.photo}</h2>
        <UndoButtons drawing={photo} undoLabel={t.value.undoBrush} redoLabel={t.value.redoBrush} />
      </div>
      {isMasked && <BrushTools studio={studio} />}
      <div class={hasPhoto ? "stage" : "stage vacant"}>
        <BoardView
          drawing={photo}
          id="photo"
          label={describe(studio, mode)}
          describedBy={hasPhoto && isMasked ? "photo-hint" : undefined}
          isIdle={!hasPhoto || !isMasked}
        />
        {!hasPhoto && <p class="placeholder">{isMasked ? t.value.photoPlaceholderMask : t.value.photoPlaceholder}</p>}
      </div>
      {hasPhoto && isMasked && <BrushHint studio={studio} />}
      <div class="buttons">
        <OpenFile label={t.value.openPhoto} onFile={(file) => void openPhoto(studio, file)} />
        <CameraButton
          onPicture={(picture) => takePicture(studio, "photo", picture)}
          onError={(error) => studio.messages.error(error, "photo")}
        />
        {firstUnit !== undefined && (
          <button
            type="button"
            title={t.value.traceEdgesHelp}
            disabled={!hasPhoto}
            onClick={() => photo.source && placeOnBoard(studio, firstUnit, photo.source, true)}
          >
            {t.value.traceEdges}
          </button>
        )}
        {isMasked && <MaskButtons studio={studio} />}
      </div>
      <MessageList messages={studio.messages} place="photo" />
      <PhotoFields studio={studio} />
    </section>
  );
}

/** How to brush, with a pointer or, while the photo has the focus, with keys. */
function BrushHint({ studio: { photo } }: { studio: Studio }) {
  return (
    <p class="hint" id="photo-hint">
      <span class="mouse">{t.value.brushHint}</span>
      <span class="keys">
        {t.value.toolKeys.brush} <b aria-live="polite">{photo.isDrawingByKeys ? t.value.penDown : t.value.penUp}.</b>
      </span>
    </p>
  );
}

function BrushTools({ studio }: { studio: Studio }) {
  const { photo } = studio;
  return (
    <div class="tools">
      <Segments
        label={t.value.brush}
        hidesLabel
        options={BRUSHES}
        text={(name) => (name === "rub" ? t.value.rubOut : t.value.brush)}
        value={photo.erases.value ? "rub" : "paint"}
        onChange={(name) => {
          photo.erases.value = name === "rub";
        }}
      />
      <Slider
        label={t.value.brushSize}
        min={0.01}
        max={0.3}
        step={0.01}
        value={photo.brushWidth.value}
        onInput={(width) => {
          photo.brushWidth.value = width;
        }}
      />
    </div>
  );
}

function MaskButtons({ studio: { photo } }: { studio: Studio }) {
  const isVacant = photo.image === undefined;
  return (
    <>
      <button type="button" title={t.value.maskAllHelp} disabled={isVacant} onClick={() => photo.maskAll()}>
        {t.value.maskAll}
      </button>
      <button
        type="button"
        title={t.value.maskNoneHelp}
        aria-label={t.value.clearBrush}
        disabled={isVacant}
        onClick={() => photo.clearMask()}
      >
        {t.value.maskNone}
      </button>
    </>
  );
}

function PhotoFields({ studio: { request } }: { studio: Studio }) {
  const { options } = t.value;
  return (
    <>
      <div class="numbers">
        <NumberField
          label={options.strength}
          value={request.strength}
          min={0}
          max={1}
          step={0.05}
          otherwise={request.mode.value === "inpaint" ? 1 : IMAGE_STRENGTH}
        />
        {request.mode.value === "inpaint" && (
          <NumberField label={options.maskBlur} value={request.maskBlur} min={0} max={256} />
        )}
        {request.mode.value === "inpaint" && request.onlyMasked.value && (
          <NumberField label={options.paddingMaskCrop} value={request.maskPadding} min={0} />
        )}
      </div>
      {request.mode.value === "inpaint" && (
        <>
          <Checkbox
            label={t.value.onlyMasked}
            title={t.value.onlyMaskedHelp}
            checked={request.onlyMasked.value}
            onChange={(on) => {
              request.onlyMasked.value = on;
            }}
          />
          <Select
            label={options.maskedContent}
            options={CONTENTS}
            text={(name) => t.value.maskedContents[name]}
            value={request.maskedContent.value}
            onChange={(name) => {
              request.maskedContent.value = name;
            }}
          />
        </>
      )}
    </>
  );
}

function describe({ photo }: Studio, mode: Mode): string {
  const { photoLabel, photoNone, photoSize, photoBrushed, photoNotBrushed } = t.value;
  const label = photoLabel(mode === "inpaint");
  const { source } = photo;
  if (source === undefined) return `${label}: ${photoNone}`;
  const size = photoSize(source.width, source.height);
  if (mode !== "inpaint") return `${label}: ${size}`;
  return `${label}: ${size}, ${photo.isBrushed ? photoBrushed : photoNotBrushed}`;
}
