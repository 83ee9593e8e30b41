/** A picture of the gallery in a dialog: how it was made, and what can be done with it. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { unitName } from "../controls/descriptions";
import { saveFile } from "../drawing/canvas";
import type { Size } from "../drawing/marks";
import type { Gallery, KeptPicture } from "../state/gallery";
import type { Studio } from "../state/studio";
import { numberText, t } from "../text";
import { Dialog } from "../widgets/dialog";
import { Compare } from "./compare";
import { fileName } from "./file_name";
import { Picture } from "./picture";
import { sendTo, useAgain, varySeed } from "./send_picture";

interface PictureProps {
  readonly studio: Studio;
  readonly gallery: Gallery;
  readonly picture: KeptPicture;
}

interface DialogProps extends PictureProps {
  /** Of the picture, in pixels; undefined if its file does not tell it. */
  readonly size: Size | undefined;
  readonly onClose: () => void;
}

export function PictureDialog(props: DialogProps) {
  const { gallery, picture, size, onClose } = props;
  const { settings, png, controls } = picture;
  const dialog = useRef<HTMLDialogElement>(null);
  const compares = useSignal(false);
  useEffect(() => dialog.current?.showModal(), []);
  const label = settings.prompt || t.value.withoutPrompt;
  const other = controls[0] ?? gallery.pictures.value.find(({ id }) => id !== picture.id)?.png;
  return (
    <Dialog dialog={dialog} class="picture-dialog" label={label} onClose={onClose}>
      <div class="view">
        {compares.value && other !== undefined ? (
          <Compare before={other} after={png} size={size} />
        ) : (
          <div class="shown">
            <Picture png={png} label={label} size={size} />
          </div>
        )}
        {other !== undefined && (
          <button
            type="button"
            aria-pressed={compares.value}
            onClick={() => {
              compares.value = !compares.value;
            }}
          >
            {t.value.compare}
          </button>
        )}
      </div>
      <div class="facts">
        <Facts picture={picture} />
        <Actions {...props} close={() => dialog.current?.close()} />
      </div>
    </Dialog>
  );
}

function Facts({ picture: { settings, model, created } }: { picture: KeptPicture }) {
  const date = new Date(created);
  return (
    <>
      <p class="prompt-text">{settings.prompt}</p>
      <p>
        {t.value.facts(model, settings.numInferenceSteps, numberText(settings.guidanceScale), settings.seed)}
        {" · "}
        <time dateTime={date.toISOString()}>{date.toLocaleString(t.value.locale)}</time>
      </p>
    </>
  );
}

interface ActionsProps extends PictureProps {
  readonly close: () => void;
}

/** Most of them close the dialog: what they change is on the page below it. */
function Actions({ studio, gallery, picture, close }: ActionsProps) {
  const { settings, png, id } = picture;
  const act = (action: () => unknown) => () => {
    close();
    void action();
  };
  const modes = (["img2img", "inpaint"] as const).filter((mode) => studio.modes.value.includes(mode));
  const units = studio.controls.value;
  return (
    <div class="actions">
      <button type="button" class="primary" onClick={act(() => useAgain(studio, picture))}>
        {t.value.useAgain}
      </button>
      <button type="button" onClick={act(() => varySeed(studio, picture))}>
        {t.value.varySeed}
      </button>
      {modes.map((mode) => (
        <button key={mode} type="button" onClick={act(() => sendTo(studio, png, mode))}>
          {t.value.sendTo[mode]}
        </button>
      ))}
      {units.map((unit) => (
        <button key={unit.id} type="button" onClick={act(() => sendTo(studio, png, unit))}>
          {t.value.sendToControl(units.length > 1 ? unitName(unit, units) : undefined)}
        </button>
      ))}
      <button type="button" onClick={() => saveFile(png, fileName(settings))}>
        {t.value.download}
      </button>
      <button type="button" class="remove" onClick={act(() => gallery.remove(id))}>
        {t.value.removePicture}
      </button>
    </div>
  );
}
