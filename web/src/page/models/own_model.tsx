/** A bundle of the visitor's, among the models. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { detect, keepOwnBundle, keptBundle, type OwnFile } from "../../worker";
import type { Place } from "../state/messages";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { OpenFolder } from "../widgets/open_folder";
import { addOwnModel } from "./catalogue";
import { chosenFolder, droppedFolder } from "./dropped_folder";

/** Where a bundle of the visitor's is, and what its model is called. */
interface OwnBundle {
  readonly url: string;
  readonly name: string;
}

/**
 * Add a model of the visitor's to the list, and open it. While a picture is drawn, which needs the model that is open, say so at
 * `place`.
 */
export function openOwn(studio: Studio, models: Models, { url, name }: OwnBundle, place: Place): void {
  const isOpened = models.add(addOwnModel(url, name));
  if (!isOpened) studio.messages.notice(() => t.value.addedWhileDrawing(name), place);
}

/** The bundle of an address, as it was written. Throws UserError if there is none that can be read. */
async function bundleAt(address: string): Promise<OwnBundle> {
  const bundleUrl = new URL(address, location.href).href;
  const { bundle, problem } = await detect({ bundleUrl });
  if (bundle === undefined && problem !== undefined) throw problem;
  return { url: bundleUrl, name: address };
}

/** Keep the bundle of these files. `onProgress` hears of the bytes that were read. Throws UserError if it is none. */
async function bundleOf(files: OwnFile[], onProgress: (doneBytes: number) => void): Promise<OwnBundle> {
  let done = 0;
  const url = await keepOwnBundle(files, (bytes) => {
    done += bytes;
    onProgress(done);
  });
  return { url, name: (await keptBundle(url))?.manifest.model.name ?? "" };
}

/** A bundle of the visitor's: by its address, or a folder of this machine. */
export function OwnModel({ studio, models }: { studio: Studio; models: Models }) {
  const address = useSignal("");
  const readBytes = useSignal<number | undefined>(undefined);
  const form = useRef<HTMLFormElement>(null);
  /** The list of models may be closed while a bundle is read. */
  const place = () => (form.current?.closest("dialog")?.open ? "models" : "request");
  const open = async (bundle: () => Promise<OwnBundle>) => {
    studio.messages.clearAt("models");
    try {
      openOwn(studio, models, await bundle(), place());
    } catch (error) {
      studio.messages.error(error, place());
    } finally {
      readBytes.value = undefined;
    }
  };
  const showBytes = (bytes: number) => {
    readBytes.value = bytes;
  };
  const takeFolder = (files: OwnFile[]) => void open(() => bundleOf(files, showBytes));
  const takeAddress = (event: Event) => {
    event.preventDefault();
    const written = address.value.trim();
    if (written !== "") void open(() => bundleAt(written));
  };
  const takeDrop = async (event: DragEvent) => {
    event.preventDefault();
    event.stopPropagation();
    const files = await droppedFolder(event.dataTransfer);
    if (files !== undefined) takeFolder(files);
  };
  return (
    <form
      ref={form}
      class="own-model"
      onSubmit={takeAddress}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => void takeDrop(event)}
    >
      <h3>{t.value.ownModel}</h3>
      <p>{t.value.ownModelHelp}</p>
      <div class="row">
        <input
          type="text"
          aria-label={t.value.ownModelAddress}
          placeholder="./my-bundle/"
          value={address.value}
          onInput={({ currentTarget }) => {
            address.value = currentTarget.value;
          }}
        />
        <button type="submit">{t.value.add}</button>
        <OpenFolder label={t.value.chooseFolder} onFiles={(files) => takeFolder(chosenFolder(files))} />
      </div>
      <p aria-live="polite">{readBytes.value !== undefined && t.value.readingFolder(bytesText(readBytes.value))}</p>
    </form>
  );
}
