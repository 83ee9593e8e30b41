/** A bundle of the visitor's, among the models. */

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { detect, keepOwnBundle, keptBundle, type OwnFile } from "../../worker";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
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

/** A bundle of the visitor's: by its address, or a folder of this machine. */
export function OwnModel({ studio, models }: { studio: Studio; models: Models }) {
  const address = useSignal("");
  const progress = useSignal("");
  const input = useRef<HTMLInputElement>(null);
  const attempt = async (action: () => Promise<void>) => {
    studio.messages.clearAt("models");
    try {
      await action();
    } catch (error) {
      studio.messages.error(error, "models");
    } finally {
      progress.value = "";
    }
  };
  const open = (files: OwnFile[]) =>
    attempt(async () => {
      let done = 0;
      const url = await keepOwnBundle(files, (bytes) => {
        done += bytes;
        progress.value = t.peek().readingFolder(bytesText(done));
      });
      const name = (await keptBundle(url))?.manifest.model.name ?? "";
      openOwn(studio, models, url, name);
    });
  const openAddress = (event: Event) => {
    event.preventDefault();
    const url = address.value.trim();
    if (url !== "") void attempt(() => openAt(studio, models, new URL(url, location.href).href, url));
  };
  return (
    <form
      class="own-model"
      onSubmit={openAddress}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        event.stopPropagation();
        void droppedFolder(event.dataTransfer).then((files) => files && open(files));
      }}
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
        <button type="button" onClick={() => input.current?.click()}>
          {t.value.chooseFolder}
        </button>
        <input
          ref={(element) => {
            input.current = element;
            element?.setAttribute("webkitdirectory", "");
          }}
          type="file"
          hidden
          onChange={({ currentTarget }) => {
            if (currentTarget.files?.length) void open(chosenFolder(currentTarget.files));
            currentTarget.value = "";
          }}
        />
      </div>
      <p aria-live="polite">{progress.value}</p>
    </form>
  );
}
