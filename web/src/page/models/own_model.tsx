/** A bundle of the visitor's, among the models. */

import { useSignal } from "@preact/signals";
import { detect, keepOwnBundle, keptBundle, type OwnFile } from "../../worker";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { OpenFolder } from "../widgets/open_folder";
import { addOwnModel } from "./catalogue";
import { chosenFolder, droppedFolder } from "./dropped_folder";

/** Add a model of the visitor's to the list, and open it. While a picture is drawn, which needs the model that is open, say so. */
export function openOwn(studio: Studio, models: Models, url: string, name: string): void {
  const isOpened = models.add(addOwnModel(url, name));
  if (!isOpened) studio.messages.notice(() => t.value.addedWhileDrawing(name), "models");
}

/** Open the bundle of an address. Throws UserError, and adds nothing to the list, if there is none that can be read. */
async function openAt(studio: Studio, models: Models, bundleUrl: string, name: string): Promise<void> {
  const { bundle, problem } = await detect({ bundleUrl });
  if (bundle === undefined && problem !== undefined) throw problem;
  openOwn(studio, models, bundleUrl, name);
}

/** Keep the bundle of these files, and open it. `onProgress` hears of the bytes that were read. Throws UserError if it is none. */
async function openFolder(
  studio: Studio,
  models: Models,
  files: OwnFile[],
  onProgress: (doneBytes: number) => void,
): Promise<void> {
  let done = 0;
  const url = await keepOwnBundle(files, (bytes) => {
    done += bytes;
    onProgress(done);
  });
  openOwn(studio, models, url, (await keptBundle(url))?.manifest.model.name ?? "");
}

/** A bundle of the visitor's: by its address, or a folder of this machine. */
export function OwnModel({ studio, models }: { studio: Studio; models: Models }) {
  const address = useSignal("");
  const readBytes = useSignal<number | undefined>(undefined);
  const attempt = async (action: () => Promise<void>) => {
    studio.messages.clearAt("models");
    try {
      await action();
    } catch (error) {
      studio.messages.error(error, "models");
    } finally {
      readBytes.value = undefined;
    }
  };
  const showBytes = (bytes: number) => {
    readBytes.value = bytes;
  };
  const takeFolder = (files: OwnFile[]) => void attempt(() => openFolder(studio, models, files, showBytes));
  const takeAddress = (event: Event) => {
    event.preventDefault();
    const url = address.value.trim();
    if (url !== "") void attempt(() => openAt(studio, models, new URL(url, location.href).href, url));
  };
  const takeDrop = async (event: DragEvent) => {
    event.preventDefault();
    event.stopPropagation();
    const files = await droppedFolder(event.dataTransfer);
    if (files !== undefined) takeFolder(files);
  };
  return (
    <form
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
