/** The pictures of this visit and earlier ones. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Size } from "../drawing/marks";
import { readHeaderSize } from "../drawing/picture_header";
import type { Gallery, KeptPicture } from "../state/gallery";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { useFocusAfterRemoval } from "../widgets/focus";
import { Picture } from "./picture";
import { PictureDialog } from "./picture_dialog";

interface Props {
  readonly studio: Studio;
  readonly gallery: Gallery;
}

export function GalleryView({ studio, gallery }: Props) {
  const opened = useSignal<{ readonly id: number; readonly size: Size | undefined } | undefined>(undefined);
  const list = useRef<HTMLUListElement>(null);
  const place = useRef(0);
  const pictures = gallery.pictures.value;
  useFocusAfterRemoval(pictures.length, () => {
    const thumbnails = list.current?.querySelectorAll("button") ?? [];
    return thumbnails[Math.min(place.current, thumbnails.length - 1)] ?? document.getElementById("generate");
  });
  if (pictures.length === 0 && gallery.trouble.value === undefined) return null;
  const picture = pictures.find(({ id }) => id === opened.value?.id);
  const open = async ({ id, png }: KeptPicture) => {
    const size = await readHeaderSize(png).catch(() => undefined); // the browser may have lost the file
    opened.value = { id, size };
  };
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
                void open(entry);
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
          size={opened.value?.size}
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
