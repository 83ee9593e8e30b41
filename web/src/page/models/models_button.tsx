/** Which model draws: a button in the header, and the list of models behind it. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { keptBundle, keptBytes, purgeBundle } from "../../worker";
import { kindText } from "../controls/descriptions";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { Dialog } from "../widgets/dialog";
import { useFocusAfterRemoval } from "../widgets/focus";
import { MessageList } from "../widgets/message_list";
import { type Model, removeOwnModel } from "./catalogue";
import { OwnModel } from "./own_model";

interface Props {
  readonly studio: Studio;
  readonly models: Models;
}

export function ModelsButton({ studio, models }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useFocusAfterRemoval(models.list.value.length, () => dialog.current?.querySelector("button"));
  const name = studio.manifest.value?.model.name ?? models.current.value?.name;
  return (
    <>
      <button type="button" class="models-button" aria-haspopup="dialog" onClick={() => dialog.current?.showModal()}>
        {t.value.model}: <strong>{name || "…"}</strong>
      </button>
      <Dialog dialog={dialog} class="models" label={t.value.models} isTitled>
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
      </Dialog>
    </>
  );
}

/** What this machine has of a model. */
interface Kept {
  readonly bytes: number;
  /** What may still be fetched; undefined if no version of it was ever here whole. */
  readonly missingBytes: number | undefined;
}

const NOTHING: Kept = { bytes: 0, missingBytes: undefined };

interface CardProps extends Props {
  readonly model: Model;
  readonly onChosen: () => void;
}

function ModelCard({ studio, models, model, onChosen }: CardProps) {
  const kept = useSignal<Kept>(NOTHING);
  const useButton = useRef<HTMLButtonElement>(null);
  const isCurrent = models.current.value?.url === model.url;
  const isLoaded = studio.engine.value !== undefined;
  const isBusy = studio.running.value !== undefined;
  const lookups = useRef(0);
  const lookUp = async () => {
    const lookup = ++lookups.current;
    const [bytes, bundle] = await Promise.all([keptBytes(model.url), keptBundle(model.url)]);
    if (lookup === lookups.current) kept.value = { bytes, missingBytes: bundle?.missingBytes }; // else a later one will say
  };
  useEffect(() => void lookUp(), [model.url, isCurrent, isLoaded]); // a load that was given up has left what was whole
  const isRemovable = !isCurrent && (kept.value.bytes > 0 || model.isOwn);
  useFocusAfterRemoval(isRemovable ? 1 : 0, () => useButton.current);
  const missing = model.needs.filter((feature) => models.lacks(feature));
  const remove = async () => {
    await purgeBundle(model.url);
    await lookUp();
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
        <p>{cost(model, kept.value, models.secondsOf(model))}</p>
        {missing.length > 0 && <p class="missing">{t.value.modelNeeds(missing.join(", "))}</p>}
      </div>
      <div class="buttons">
        {isCurrent ? (
          <span class="in-use">{t.value.modelInUse}</span>
        ) : (
          <button
            ref={useButton}
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
        {isRemovable && (
          <button type="button" onClick={() => void remove()}>
            {t.value.removeModel}
          </button>
        )}
      </div>
    </li>
  );
}

function describe({ kinds, sizes, licence }: Model): string {
  const size = sizes.map(([width, height]) => `${width}×${height}`);
  return [kinds.map(kindText).join(", "), size.join(", "), licence].filter((part) => part !== "").join(" · ");
}

function cost({ bytes, memoryBytes, steps }: Model, kept: Kept, seconds: number | undefined): string {
  const parts: string[] = [];
  const missing = kept.missingBytes ?? bytes - kept.bytes;
  if (kept.bytes > 0) parts.push(t.value.modelHere(bytesText(kept.bytes)));
  if (missing > 0) parts.push(t.value.modelToFetch(bytesText(missing)));
  if (memoryBytes !== undefined) parts.push(t.value.modelMemory(bytesText(memoryBytes.reduced)));
  if (seconds !== undefined) parts.push(t.value.modelTime(Math.max(1, Math.round(seconds)), steps ?? 0));
  return parts.join(" · ");
}
