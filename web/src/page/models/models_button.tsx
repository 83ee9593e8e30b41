/** Which model draws: a button in the header, and the list of models behind it. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { keepOwnBundle, keptBundle, type OwnFile, purgeBundle } from "../../worker";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { MessageList } from "../widgets/message_list";
import { addOwnModel, type Model, removeOwnModel } from "./catalogue";
import { chosenFolder, droppedFolder } from "./dropped_folder";

interface Props {
  readonly studio: Studio;
  readonly models: Models;
}

export function ModelsButton({ studio, models }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const name = studio.manifest.value?.model.name ?? models.current.value?.name;
  return (
    <>
      <button type="button" class="models-button" onClick={() => dialog.current?.showModal()}>
        {t.value.model}: <strong>{name || "…"}</strong>
      </button>
      <dialog ref={dialog} class="models" aria-labelledby="models-title">
        <div class="card-head">
          <h2 id="models-title">{t.value.models}</h2>
          <button type="button" class="icon" aria-label={t.value.close} onClick={() => dialog.current?.close()}>
            ✕
          </button>
        </div>
        <ul class="model-list">
          {models.list.value.map((model) => (
            <ModelCard
              key={model.url}
              studio={studio}
              models={models}
              model={model}
              onChosen={() => dialog.current?.close()}
            />
          ))}
        </ul>
        <OwnModel studio={studio} models={models} />
        <MessageList messages={studio.messages} place="models" />
      </dialog>
    </>
  );
}

interface CardProps extends Props {
  readonly model: Model;
  readonly onChosen: () => void;
}

function ModelCard({ studio, models, model, onChosen }: CardProps) {
  const kept = useSignal<number | undefined>(undefined);
  const isCurrent = models.current.value?.url === model.url;
  const isLoaded = studio.engine.value !== undefined;
  const isBusy = studio.running.value !== undefined;
  useEffect(() => {
    void keptBundle(model.url).then((found) => {
      kept.value = found?.bytes ?? 0;
    });
  }, [model.url, isCurrent && isLoaded]);
  const missing = model.needs.filter((feature) => models.lacks(feature));
  const remove = async () => {
    await purgeBundle(model.url);
    kept.value = 0;
    if (model.isOwn) {
      removeOwnModel(model.url);
      models.list.value = models.list.peek().filter((other) => other.url !== model.url);
    }
  };
  return (
    <li class={isCurrent ? "model current" : "model"}>
      {model.picture ? <img class="model-picture" src={model.picture} alt="" /> : <span class="model-picture" />}
      <div>
        <h3>{model.name || (isCurrent && studio.manifest.value?.model.name) || t.value.modelOfThisSite}</h3>
        <p>{describe(model)}</p>
        <p>{cost(model, kept.value ?? 0, models.secondsOf(model))}</p>
        {missing.length > 0 && <p class="missing">{t.value.modelNeeds(missing.join(", "))}</p>}
      </div>
      <div class="buttons">
        {isCurrent ? (
          <span class="in-use">{t.value.modelInUse}</span>
        ) : (
          <button
            type="button"
            class="primary"
            disabled={missing.length > 0 || isBusy}
            onClick={() => {
              models.choose(model);
              onChosen();
            }}
          >
            {t.value.useModel}
          </button>
        )}
        {!isCurrent && ((kept.value ?? 0) > 0 || model.isOwn) && (
          <button type="button" onClick={() => void remove()}>
            {t.value.removeModel}
          </button>
        )}
      </div>
    </li>
  );
}

function describe({ kinds, sizes, licence }: Model): string {
  const names = kinds.map((kind) => (t.value.kinds as Record<string, string>)[kind] ?? kind);
  const size = sizes.map(([width, height]) => `${width}×${height}`);
  return [names.join(", "), size.join(", "), licence].filter((part) => part !== "").join(" · ");
}

function cost({ bytes, memoryBytes, steps }: Model, here: number, seconds: number | undefined): string {
  const parts: string[] = [];
  if (here > 0) parts.push(t.value.modelHere(bytesText(here)));
  if (bytes > here) parts.push(t.value.modelToFetch(bytesText(bytes - here)));
  if (memoryBytes !== undefined) parts.push(t.value.modelMemory(bytesText(memoryBytes.reduced)));
  if (seconds !== undefined) parts.push(t.value.modelTime(Math.max(1, Math.round(seconds)), steps ?? 0));
  return parts.join(" · ");
}

/** A bundle of the visitor's: by its address, or a folder of this machine. */
function OwnModel({ studio, models }: Props) {
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
      models.add(addOwnModel(url, name));
    });
  const openAddress = (event: Event) => {
    event.preventDefault();
    const url = address.value.trim();
    if (url !== "") void attempt(async () => models.add(addOwnModel(new URL(url, location.href).href, url)));
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
