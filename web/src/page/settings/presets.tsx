/** Presets: three that follow from what the bundle recommends, and the visitor's own. */

import { type Signal, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { settingsOfRecord } from "../../worker";
import { isObject, isTextRecord, keep, onKeptElsewhere, readKept } from "../state/kept";
import { type Options, optionsOf, toTexts, usePreset } from "../state/options";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { useFocusAfterRemoval } from "../widgets/focus";

export const BUILT_IN = ["quick", "standard", "fine"] as const;
export type BuiltIn = (typeof BUILT_IN)[number];

const KEPT = "presets";
/** What a preset of the visitor's is about: how to draw, not what. */
const LEFT_OUT = ["prompt", "seed", "width", "height", "strength"] as const;

type Presets = Readonly<Record<string, Record<string, string>>>;

const own: Signal<Presets> = signal(readOwn());

/** The options of a built-in preset: half or twice the recommended steps. A distilled model's few steps are not halved. */
export function builtIn(name: BuiltIn, { steps, guidance_scale }: { steps: number; guidance_scale: number }): Options {
  const few = steps > 8 ? Math.ceil(steps / 2) : steps;
  const counts: Record<BuiltIn, number> = { quick: few, standard: steps, fine: 2 * steps };
  return { numInferenceSteps: counts[name], guidanceScale: guidance_scale };
}

export function PresetChoice({ studio }: { studio: Studio }) {
  return (
    <div class="presets">
      <BuiltInPresets studio={studio} />
      <OwnPresets studio={studio} />
    </div>
  );
}

function BuiltInPresets({ studio }: { studio: Studio }) {
  const defaults = studio.manifest.value?.defaults;
  const { steps, guidance } = studio.request;
  const isChosen = (name: BuiltIn) => {
    if (defaults === undefined) return false;
    const { numInferenceSteps, guidanceScale } = builtIn(name, defaults);
    return steps.value === numInferenceSteps && guidance.value === guidanceScale;
  };
  return (
    <fieldset class="segments">
      <legend>{t.value.presets}</legend>
      <div class="segment-row">
        {BUILT_IN.map((name) => (
          <label key={name} title={t.value.presetHelp[name]}>
            <input
              type="radio"
              name="preset"
              checked={isChosen(name)}
              disabled={defaults === undefined}
              onChange={() => defaults && usePreset(studio, builtIn(name, defaults))}
            />
            {t.value.presetNames[name]}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function OwnPresets({ studio }: { studio: Studio }) {
  const saveButton = useRef<HTMLButtonElement>(null);
  const presets = Object.entries(own.value);
  const readAgain = () => {
    own.value = readOwn();
  };
  useEffect(() => onKeptElsewhere(KEPT, readAgain), []); // what another tab has saved is not to be saved over
  useFocusAfterRemoval(presets.length, () => saveButton.current);
  return (
    <div class="own-presets">
      {presets.map(([name, texts]) => (
        <span key={name} class="own-preset">
          <button type="button" onClick={() => usePreset(studio, settingsOfRecord(texts).options)}>
            {name}
          </button>
          <button type="button" class="icon" aria-label={t.value.removePreset(name)} onClick={() => removePreset(name)}>
            ✕
          </button>
        </span>
      ))}
      <button ref={saveButton} type="button" onClick={() => savePreset(studio)}>
        {t.value.savePreset}
      </button>
    </div>
  );
}

/** Keep the present settings under a name that the visitor is asked for. */
function savePreset(studio: Studio): void {
  const name = prompt(t.peek().presetName)?.trim();
  if (!name) return;
  const texts = toTexts(optionsOf(studio));
  for (const left of LEFT_OUT) delete texts[left];
  keepPresets({ ...own.peek(), [name]: texts });
}

function removePreset(name: string): void {
  const { [name]: _, ...others } = own.peek();
  keepPresets(others);
}

function readOwn(): Presets {
  return readKept(KEPT, isPresets) ?? {};
}

function keepPresets(presets: Presets): void {
  own.value = presets;
  keep(KEPT, presets);
}

function isPresets(value: unknown): value is Record<string, Record<string, string>> {
  return isObject(value) && Object.values(value).every(isTextRecord);
}
