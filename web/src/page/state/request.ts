/** Read the request for a picture from the store. */

import type { GenerateRequest } from "../../worker";
import { unitName } from "../controls/descriptions";
import { blackImage } from "../drawing/marks";
import { t } from "../text";
import { PageError } from "../text/page_error";
import type { Studio } from "./studio";

/** The units that take part. */
function activeUnits(studio: Studio) {
  return studio.controls.peek().filter(({ enabled, controlnet }) => enabled.peek() && controlnet.peek() !== "");
}

/** Wait for annotators, and read the request. Throws UserError where a picture is missing. */
export async function readRequest(studio: Studio): Promise<GenerateRequest> {
  const { request } = studio;
  const units = activeUnits(studio);
  const controlImage = await Promise.all(units.map(({ drawing }) => drawing.controlImage()));
  const each = <T>(read: (unit: (typeof units)[number]) => T) => units.map(read);
  const { width, height } = request.size.peek();
  return {
    ...request.others.peek(),
    prompt: request.prompt.peek(),
    negativePrompt: request.negativePrompt.peek(),
    sampler: request.sampler.peek(),
    numInferenceSteps: request.steps.peek(),
    guidanceScale: request.guidance.peek(),
    guidanceRescale: request.rescale.peek(),
    seed: request.seed.peek(),
    width,
    height,
    controlnets: each(({ controlnet }) => controlnet.peek()),
    controlImage: units.length > 1 ? controlImage : controlImage[0],
    controlnetConditioningScale: oneOrEach(each(({ weight }) => weight.peek())),
    controlGuidanceStart: oneOrEach(each(({ start }) => start.peek())),
    controlGuidanceEnd: oneOrEach(each(({ end }) => end.peek())),
    controlMode: oneOrEach(each(({ mode }) => mode.peek())),
    ...readPhoto(studio),
  };
}

/** Tell of boards that are empty, and of the changes that made opened pictures fit. */
export function tellOfBoards({ controls, messages }: Studio): void {
  const units = controls.peek();
  for (const unit of units) {
    const { enabled, drawing } = unit;
    if (!enabled.peek()) continue;
    const name = () => (units.length > 1 ? unitName(unit, units) : undefined);
    if (drawing.isEmpty()) messages.notice(() => t.value.boardEmpty(name()));
    const subject = () => t.value.controlImageOf(name());
    for (const notice of drawing.notices) messages.notice(notice, "request", subject);
  }
}

/** A single value for a single unit. What a unit leaves open is left to the bundle for all. */
function oneOrEach<T>(values: readonly (T | undefined)[]): T | T[] | undefined {
  if (values.length === 0 || values.includes(undefined)) return undefined;
  return values.length === 1 ? (values[0] as T) : (values as T[]);
}

/** Return the pictures of img2img and inpainting. */
function readPhoto({ photo, request, messages }: Studio): Partial<GenerateRequest> {
  const mode = request.mode.peek();
  if (mode === "txt2img") return {};
  const image = photo.image;
  if (image === undefined) {
    throw new PageError(
      () => t.value.subjects.photo,
      () => t.value.photoWanted(mode),
    );
  }
  for (const notice of photo.notices) messages.notice(notice);
  const strength = request.strength.peek();
  if (mode === "img2img") return { image, strength };
  const maskImage = photo.maskImage();
  if (maskImage === undefined) messages.notice(() => t.value.nothingBrushed);
  return {
    image,
    strength,
    maskImage: maskImage ?? blackImage(image.width, image.height),
    maskBlur: request.maskBlur.peek(),
    maskedContent: request.maskedContent.peek(),
    paddingMaskCrop: request.onlyMasked.peek() && maskImage ? request.maskPadding.peek() : undefined,
  };
}
