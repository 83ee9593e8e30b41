/** The page: control units on one side, the picture and the request on the other. */

import { useEffect } from "preact/hooks";
import { isServiceModel } from "../remote/service";
import { PhotoCard } from "./controls/photo_card";
import { UnitList } from "./controls/unit_list";
import { ModelsButton } from "./models/models_button";
import { PlaceChoice } from "./models/place_choice";
import { GalleryView } from "./results/gallery_view";
import { PictureCard } from "./results/picture_card";
import { LanguageChoice } from "./settings/language_choice";
import { ModeChoice } from "./settings/mode_choice";
import { RequestForm } from "./settings/request_form";
import type { Gallery } from "./state/gallery";
import type { Models } from "./state/models";
import type { Run } from "./state/run";
import type { Studio } from "./state/studio";
import { isOutdated } from "./state/update";
import { t } from "./text";
import { bytesText, deviceText, reasonText } from "./text/engine_text";
import { isOneColumn } from "./widgets/columns";

interface AppProps {
  readonly studio: Studio;
  readonly run: Run;
  readonly gallery: Gallery;
  readonly models: Models;
}

export function App(props: AppProps) {
  const { studio, models } = props;
  return (
    <>
      <NewVersion />
      <Header studio={studio} models={models} />
      <main>
        <div class="inputs">
          <PlaceChoice studio={studio} models={models} />
          <ModeChoice studio={studio} />
          {studio.request.mode.value !== "txt2img" && <PhotoCard studio={studio} />}
          <UnitList studio={studio} />
        </div>
        <Output {...props} />
      </main>
      <footer>
        <p id="about">{about(studio)}</p>
        <LanguageChoice />
      </footer>
    </>
  );
}

/** In one column the request stands before the picture: also for who goes on by keys, which a style alone would not change. */
function Output({ studio, run, gallery, models }: AppProps) {
  const picture = <PictureCard key="picture" studio={studio} run={run} models={models} />;
  const form = <RequestForm key="form" studio={studio} run={run} />;
  return (
    <div class="output">
      {isOneColumn.value ? [form, picture] : [picture, form]}
      <GalleryView studio={studio} gallery={gallery} />
    </div>
  );
}

/** A reload opens the new version; this one goes on, whole, until then. */
function NewVersion() {
  if (!isOutdated.value) return null;
  return (
    <p class="message new-version" aria-live="polite">
      {t.value.newVersion}{" "}
      <button type="button" onClick={() => location.reload()}>
        {t.value.reload}
      </button>
    </p>
  );
}

function Header({ studio, models }: { studio: Studio; models: Models }) {
  const { titleRing, titleDraw, titleRepaint } = t.value;
  const isServed = isServiceModel(models.current.value?.url ?? "");
  const introBefore = isServed ? t.value.introBeforeServed : t.value.introBefore;
  const introAfter = isServed ? t.value.introAfterServed : t.value.introAfter;
  const { introRing, introDraw, introRepaint } = t.value;
  const repaints = studio.modes.value[0] === "inpaint";
  const title = studio.isBundledModel.value ? titleRing : repaints ? titleRepaint : titleDraw;
  const subject = studio.isBundledModel.value ? introRing : repaints ? introRepaint : introDraw;
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <header>
      <div>
        <h1>{title}</h1>
        <p>
          {introBefore} {subject}
          {introAfter}
        </p>
      </div>
      <ModelsButton studio={studio} models={models} />
    </header>
  );
}

function about({ engine }: Studio): string {
  if (engine.value === undefined) return "";
  const { manifest, bundleSha256, dtype, runsOn, memory } = engine.value;
  const { name, width, height } = manifest.model;
  const [device, reason] = [deviceText(engine.value), reasonText(engine.value)];
  const model = t.value.about(name, `${width}×${height}`, dtype, device, reason);
  const bytes = t.value.aboutMemory(bytesText(memory.peak_bytes), runsOn === "gpu");
  return `${model}, ${bytes}. ${t.value.aboutBundle(bundleSha256.slice(0, 12))}.`;
}
