/** The pictures of this visit and earlier ones, and what can be done with each. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { unitName } from "../controls/descriptions";
import { saveFile } from "../drawing/canvas";
import type { Gallery, KeptPicture } from "../state/gallery";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { useFocusAfterRemoval } from "../widgets/focus";
import { Compare } from "./compare";
import { fileName } from "./file_name";
import { Picture } from "./picture";
import { sendTo, useAgain, varySeed } from "./send_picture";

interface Props {
  readonly studio: Studio;
  readonly gallery: Gallery;
}

export function GalleryView({ studio, gallery }: Props) {
  const opened = useSignal<number | undefined>(undefined);
  const list = useRef<HTMLUListElement>(null);
  const place = useRef(0);
  const pictures = gallery.pictures.value;
  useFocusAfterRemoval(pictures.length, () => {
    const thumbnails = list.current?.querySelectorAll("button") ?? [];
    return thumbnails[Math.min(place.current, thumbnails.length - 1)] ?? document.getElementById("generate");
  });
  if (pictures.length === 0 && gallery.trouble.value === undefined) return null;
  const picture = pictures.find(({ id }) => id === opened.value);
  return (
    <section class="card gallery" aria-labelledby="gallery-title">
      <div class="card-head">
        <h2 id="gallery-title">{t.value.gallery}</h2>
        <Room gallery={gallery} />
      </div>
      {gallery.trouble.value !== undefined && (
        <p class="message" aria-live="polite">
          {t.value.galleryTrouble[gallery.trouble.value]}
        </p>
      )}
      <ul ref={list} class="thumbnails">
        {pictures.map((entry, i) => (
          <li key={entry.id}>
            <button
              type="button"
              aria-haspopup="dialog"
              onClick={() => {
                place.current = i;
                opened.value = entry.id;
              }}
            >
              <Picture png={entry.png} label={entry.settings.prompt || t.value.withoutPrompt} />
            </button>
          </li>
        ))}
      </ul>
      {picture !== undefined && (
        <PictureDialog
          key={picture.id}
          studio={studio}
          gallery={gallery}
          picture={picture}
          onClose={() => {
            opened.value = undefined;
          }}
        />
      )}
    </section>
  );
}

function Room({ gallery }: { gallery: Gallery }) {
  const room = gallery.room.value;
  if (room === undefined) return null;
  return <small>{t.value.room(bytesText(room.usage), bytesText(room.quota))}</small>;
}

interface DialogProps extends Props {
  readonly picture: KeptPicture;
  readonly onClose: () => void;
}

function PictureDialog({ studio, gallery, picture, onClose }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const compares = useSignal(false);
  useEffect(() => dialog.current?.showModal(), []);
  const { settings, png, controls } = picture;
  const act = (action: () => unknown) => () => {
    dialog.current?.close();
    void action();
  };
  const modes = studio.modes.value;
  const units = studio.controls.value;
  const other = controls[0] ?? gallery.pictures.value.find(({ id }) => id !== picture.id)?.png;
  return (
    <dialog ref={dialog} class="picture-dialog" aria-label={settings.prompt || t.value.withoutPrompt} onClose={onClose}>
      <button type="button" class="icon close" aria-label={t.value.close} onClick={() => dialog.current?.close()}>
        ✕
      </button>
      {compares.value && other !== undefined ? (
        <Compare before={other} after={png} />
      ) : (
        <div class="shown">
          <Picture png={png} label={settings.prompt || t.value.withoutPrompt} />
        </div>
      )}
      <div class="facts">
        <p class="prompt-text">{settings.prompt}</p>
        <p>
          {t.value.facts(picture.model, settings.numInferenceSteps, String(settings.guidanceScale), settings.seed)}
          {" · "}
          <time dateTime={new Date(picture.created).toISOString()}>
            {new Date(picture.created).toLocaleString(t.value.locale)}
          </time>
        </p>
        <div class="actions">
          <button type="button" class="primary" onClick={act(() => useAgain(studio, picture))}>
            {t.value.useAgain}
          </button>
          <button type="button" onClick={act(() => varySeed(studio, picture))}>
            {t.value.varySeed}
          </button>
          {(["img2img", "inpaint"] as const)
            .filter((mode) => modes.includes(mode))
            .map((mode) => (
              <button key={mode} type="button" onClick={act(() => sendTo(studio, png, mode))}>
                {t.value.sendTo[mode]}
              </button>
            ))}
          {units.map((unit) => (
            <button key={unit.id} type="button" onClick={act(() => sendTo(studio, png, unit))}>
              {t.value.sendToControl(units.length > 1 ? unitName(unit, units) : undefined)}
            </button>
          ))}
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
          <button type="button" onClick={() => saveFile(png, fileName(settings))}>
            {t.value.download}
          </button>
          <button type="button" class="remove" onClick={act(() => gallery.remove(picture.id))}>
            {t.value.removePicture}
          </button>
        </div>
      </div>
    </dialog>
  );
}
