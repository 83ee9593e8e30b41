/** The page: control units on one side, the picture and the request on the other. */

import { useSignalEffect } from "@preact/signals";
import { gigabytes } from "../worker";
import { PhotoCard } from "./controls/photo_card";
import { UnitList } from "./controls/unit_list";
import { PictureCard } from "./results/picture_card";
import { ModeChoice } from "./settings/mode_choice";
import { RequestForm } from "./settings/request_form";
import type { Run } from "./state/run";
import type { Studio } from "./state/studio";
import { t } from "./text";

export function App({ studio, run }: { studio: Studio; run: Run }) {
  return (
    <>
      <Header studio={studio} />
      <main>
        <div class="inputs">
          <ModeChoice studio={studio} />
          {studio.request.mode.value !== "txt2img" && <PhotoCard studio={studio} />}
          <UnitList studio={studio} />
        </div>
        <div class="output">
          <PictureCard studio={studio} run={run} />
          <RequestForm studio={studio} run={run} />
        </div>
      </main>
      <footer>
        <p id="about">{about(studio)}</p>
      </footer>
    </>
  );
}

function Header({ studio }: { studio: Studio }) {
  const { titleRing, titleDraw, titleRepaint, introBefore, introAfter } = t.value;
  const { introRing, introDraw, introRepaint } = t.value;
  const repaints = studio.modes.value[0] === "inpaint";
  const title = studio.isBundledModel.value ? titleRing : repaints ? titleRepaint : titleDraw;
  const subject = studio.isBundledModel.value ? introRing : repaints ? introRepaint : introDraw;
  useSignalEffect(() => {
    document.title = title;
  });
  return (
    <header>
      <h1>{title}</h1>
      <p>
        {introBefore} {subject}
        {introAfter}
      </p>
    </header>
  );
}

function about({ engine }: Studio): string {
  if (engine.value === undefined) return "";
  const { manifest, bundleSha256, dtype, device, runsOn, reason, memory } = engine.value;
  const { name, width, height } = manifest.model;
  const model = t.value.about(name, `${width}×${height}`, dtype, device, reason);
  const bytes = t.value.aboutMemory(gigabytes(memory.peak_bytes), runsOn === "gpu");
  return `${model}, ${bytes}. ${t.value.aboutBundle(bundleSha256.slice(0, 12))}.`;
}
