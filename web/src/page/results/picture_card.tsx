/** The picture: previews while it is made, then the finished one, with the progress of the present work below. */

import { useEffect, useRef } from "preact/hooks";
import { pictureFile } from "../../remote/picture_file";
import type { GeneratedImage } from "../../worker";
import { saveFile } from "../drawing/canvas";
import { PictureView } from "../drawing/picture_view";
import type { Models } from "../state/models";
import type { Run } from "../state/run";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { fileName } from "./file_name";
import { ShareLink } from "./share_link";

interface PictureProps {
  readonly studio: Studio;
  readonly run: Run;
  readonly models: Models;
}

export function PictureCard({ studio, run, models }: PictureProps) {
  const card = useRef<HTMLDivElement>(null);
  const { preview, result, request, running } = studio;
  const image = preview.value ?? result.value;
  const isRunning = running.value !== undefined;
  useEffect(() => {
    if (isRunning) card.current?.scrollIntoView({ block: "nearest" }); // on a phone it is below the form
  }, [isRunning]);
  const { width, height } = request.size.value;
  return (
    <section class="card picture" aria-labelledby="picture-title">
      <h2 id="picture-title" class="visually-hidden">
        {t.value.picture}
      </h2>
      <div
        ref={card}
        class={image === undefined ? "stage vacant" : "stage"}
        style={{ "--ratio": width / height, aspectRatio: `${width} / ${height}` }}
      >
        <PictureView id="picture" image={image} label={labelOf(studio)} />
        {image === undefined && <p class="placeholder">{t.value.placeholder}</p>}
      </div>
      <ProgressBar studio={studio} run={run} models={models} />
    </section>
  );
}

function labelOf({ preview, result }: Studio): string {
  if (preview.value !== undefined) return t.value.preview;
  if (result.value === undefined) return t.value.noPicture;
  return result.value.settings.prompt || t.value.withoutPrompt;
}

/** How far the work is. On a phone it stays in sight while there is some, with a button that cancels. */
function ProgressBar({ studio, run, models }: PictureProps) {
  const { text, fraction, isBusy } = studio.status.value;
  const { running, result, photo, modes, request } = studio;
  const isRunning = running.value !== undefined;
  const repaint = () => {
    if (result.value === undefined) return;
    if (request.mode.value === "txt2img") request.mode.value = "inpaint";
    photo.open(result.value);
  };
  return (
    <div id="progress-bar" class={isBusy ? "busy" : undefined}>
      <progress id="progress" max={1} value={fraction} aria-labelledby="status" />
      <div class="row">
        <p id="status" role="status">
          {text()}
        </p>
        {isRunning && (
          <button
            type="button"
            id="cancel-in-sight"
            disabled={running.value?.signal.aborted}
            onClick={() => run.cancel()}
          >
            {t.value.cancel}
          </button>
        )}
        {modes.value.includes("inpaint") && (
          <button
            type="button"
            class="repaint"
            title={t.value.repaintItHelp}
            disabled={result.value === undefined}
            onClick={repaint}
          >
            {t.value.repaintIt}
          </button>
        )}
        <ShareLink studio={studio} models={models} />
        <button
          type="button"
          id="download"
          disabled={result.value === undefined}
          onClick={() => result.value && void download(result.value)}
        >
          {t.value.download}
        </button>
      </div>
    </div>
  );
}

async function download(picture: GeneratedImage): Promise<void> {
  saveFile(await pictureFile(picture), fileName(picture.settings));
}
