/** Where a picture of the gallery can go: back into the request, or into the next picture. */

import { batch } from "@preact/signals";
import { readPicture } from "../drawing/canvas";
import type { ControlUnit } from "../state/control_unit";
import { openControl, openPhoto } from "../state/files";
import type { KeptPicture } from "../state/gallery";
import { restore } from "../state/options";
import type { Mode, Studio } from "../state/studio";

/** Set the request to that of the picture, its control images too. */
export async function useAgain(studio: Studio, { settings, model, controls }: KeptPicture): Promise<void> {
  studio.messages.clear();
  restore(studio, { options: settings, model, bundleSha256: "", notices: [] });
  for (const [i, name] of settings.controlnets.entries()) {
    const unit = studio.controls.peek().find(({ controlnet }) => controlnet.peek() === name);
    if (unit === undefined || controls[i] === undefined) continue;
    const file = new File([controls[i]], "control.png", { type: "image/png" });
    unit.drawing.open(await readPicture(file, "control image"));
  }
}

/** The same request, and another seed for each next picture. */
export async function varySeed(studio: Studio, picture: KeptPicture): Promise<void> {
  await useAgain(studio, picture);
  batch(() => {
    studio.request.seed.value = undefined;
  });
}

/** Begin the next picture with this one, or control it by this one. */
export async function sendTo(studio: Studio, png: Blob, place: Exclude<Mode, "txt2img"> | ControlUnit): Promise<void> {
  const file = new File([png], "picture.png", { type: "image/png" });
  if (typeof place !== "string") {
    await openControl(studio, place, file);
    return;
  }
  studio.request.mode.value = place;
  await openPhoto(studio, file);
}
