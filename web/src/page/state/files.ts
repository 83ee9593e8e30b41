/** Pictures that the visitor opens, drops or pastes, and where they go. */

import { type Image, type RestoredSettings, readSettings } from "../../worker";
import { annotationOf } from "../annotators/annotation";
import { isOutline } from "../annotators/is_outline";
import { readPicture, type Subject } from "../drawing/canvas";
import { t } from "../text";
import type { ControlUnit } from "./control_unit";
import type { Place } from "./messages";
import { restore } from "./options";
import type { Studio } from "./studio";
import { isTextField } from "./text_field";

/** Put a file's picture on a control unit's board: a photo with its annotator, a ready map as it is. */
export async function openControl(studio: Studio, unit: ControlUnit, file: File): Promise<void> {
  await read(studio, file, "control image", unit.id, (source) => placeOnBoard(studio, unit, source));
}

/** Put a picture on a control unit's board; a photo, which no model follows as it is, with its annotator. */
export function placeOnBoard(studio: Studio, unit: ControlUnit, source: Image, isPhoto = false): void {
  const isReady = !isPhoto && (!studio.isBundledModel.peek() || isOutline(source));
  const annotation = annotationOf(isReady ? "none" : unit.annotators[0], unit.drawing.size);
  unit.drawing.open(source, annotation);
}

/** Put a picture that has no file, such as one of the camera, where it was asked for. */
export function takePicture(studio: Studio, place: ControlUnit | "photo", source: Image): void {
  const { messages } = studio;
  messages.clear();
  asked.set(place === "photo" ? place : place.id, source);
  try {
    if (place === "photo") studio.photo.open(source);
    else placeOnBoard(studio, place, source, true);
  } catch (error) {
    messages.error(error, place === "photo" ? place : place.id);
  }
}

export async function openPhoto(studio: Studio, file: File): Promise<void> {
  await read(studio, file, "photo", "photo", (source) => studio.photo.open(source));
}

/** What was asked for last at each place: a picture that is decoded after a later one does not take its place. */
const asked = new Map<Place, object>();

async function read(
  { messages }: Studio,
  file: File,
  subject: Subject,
  place: Place,
  use: (source: Image) => void,
): Promise<void> {
  messages.clear();
  asked.set(place, file);
  const isLast = () => asked.get(place) === file;
  try {
    const picture = await readPicture(file, subject);
    if (isLast()) use(picture);
  } catch (error) {
    if (isLast()) messages.error(error, place);
  }
}

/**
 * Restore the settings of a PNG file that says how it was made. Returns whether it did; any other picture is opened as one,
 * as is every picture that is dropped on a board.
 */
async function restoreFrom(studio: Studio, file: File): Promise<boolean> {
  if (file.type !== "image/png") return false;
  let restored: RestoredSettings;
  try {
    restored = await readSettings(new Uint8Array(await file.arrayBuffer()), file.name);
  } catch {
    return false;
  }
  studio.messages.clear();
  studio.messages.notice(() => t.value.settingsRestored);
  restore(studio, restored);
  return true;
}

/** Open a picture that was dropped or pasted: where it was dropped, else as the photo that is missing, else on the first board. */
async function openAt(studio: Studio, target: EventTarget | null, file: File | undefined): Promise<void> {
  if (file === undefined) return;
  const place = (target instanceof Element ? target : null)?.closest<HTMLElement>("[data-drop]")?.dataset.drop;
  if (place === undefined && (await restoreFrom(studio, file))) return;
  const units = studio.controls.peek();
  const wantsPhoto = studio.request.mode.peek() !== "txt2img";
  const unit = units.find(({ id }) => String(id) === place);
  if (unit === undefined && wantsPhoto && (place === "photo" || studio.photo.source === undefined)) {
    void openPhoto(studio, file);
  } else if (unit !== undefined || units.length > 0) {
    void openControl(studio, unit ?? units[0], file);
  }
}

/**
 * Take the pictures that are dropped on the page, or pasted. Text that is dropped on a field goes there, and so does pasted
 * text that has a picture beside it, as texts of office programs have.
 */
export function listenForFiles(studio: Studio): void {
  const isText = ({ target, dataTransfer }: DragEvent) => isTextField(target) && !dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => isText(event) || event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (isText(event)) return;
    event.preventDefault();
    void openAt(studio, event.target, event.dataTransfer?.files[0]);
  });
  document.addEventListener("paste", ({ target, clipboardData }) => {
    if (isTextField(target) && clipboardData?.types.includes("text/plain")) return;
    void openAt(studio, target, clipboardData?.files[0]);
  });
}
