/** The settings of the request, folded. */

import { useId } from "preact/hooks";
import type { MemoryChoice, Settings } from "../../worker";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { bytesText } from "../text/engine_text";
import { NumberField, Select } from "../widgets/fields";
import { SAMPLER_NAMES } from "./sampler_names";

/** The page offers to save GPU memory if the model takes this many bytes, or if its address has `?memory=`. */
const MEMORY_WORTH_A_SETTING = 1e9;

export function SettingsFields({ studio }: { studio: Studio }) {
  const { request, engine } = studio;
  const { options } = t.value;
  return (
    <details>
      <summary>{t.value.settings}</summary>
      <div class="settings">
        <NumberField label={options.numInferenceSteps} help={t.value.stepsHelp} value={request.steps} min={1} />
        <NumberField
          label={options.guidanceScale}
          help={t.value.guidanceHelp}
          value={request.guidance}
          min={0}
          step={0.5}
        />
        <NumberField
          label={options.guidanceRescale}
          help={t.value.rescaleHelp}
          value={request.rescale}
          min={0}
          max={1}
          step={0.05}
        />
        <Select
          label={options.sampler}
          help={t.value.samplerHelp}
          options={engine.value?.samplers ?? []}
          text={(name) => SAMPLER_NAMES[name] ?? name}
          value={request.sampler.value}
          onChange={(name) => {
            request.sampler.value = name;
          }}
        />
        <div class="seed">
          <NumberField label={options.seed} help={t.value.seedHelp} value={request.seed} min={0} />
          <button
            type="button"
            title={t.value.newSeedHelp}
            onClick={() => {
              request.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
            }}
          >
            {t.value.newSeed}
          </button>
        </div>
        <NumberField label={t.value.count} help={t.value.countHelp} value={request.count} min={1} max={100} />
        <MemoryField studio={studio} />
        <NegativePrompt studio={studio} />
        <OtherOptions studio={studio} />
      </div>
    </details>
  );
}

/** Options without a field, which a restored picture has brought. */
function OtherOptions({ studio: { request } }: { studio: Studio }) {
  const names = Object.entries(request.others.value);
  if (names.length === 0) return null;
  return (
    <p class="wide others">
      {t.value.alsoFromPicture}:{" "}
      {names.map(([name, value]) => `${t.value.options[name as keyof Settings]} ${JSON.stringify(value)}`).join(", ")}{" "}
      <button
        type="button"
        onClick={() => {
          request.others.value = {};
        }}
      >
        {t.value.forget}
      </button>
    </p>
  );
}

function NegativePrompt({ studio: { request } }: { studio: Studio }) {
  const id = useId();
  return (
    <div class="field wide">
      <label for={id}>{t.value.options.negativePrompt}</label>
      <input
        id={id}
        type="text"
        autocomplete="off"
        value={request.negativePrompt.value}
        onInput={({ currentTarget }) => {
          request.negativePrompt.value = currentTarget.value;
        }}
      />
    </div>
  );
}

/** How much memory each choice needs. A small model leaves nothing to choose. */
function MemoryField({ studio: { engine, memory } }: { studio: Studio }) {
  const plan = engine.value?.memoryPlan;
  const isAsked = new URLSearchParams(location.search).has("memory");
  if (plan === undefined || (plan.resident.peak_bytes < MEMORY_WORTH_A_SETTING && !isAsked)) return null;
  const texts: Record<MemoryChoice, string> = {
    auto: t.value.memoryAuto,
    resident: t.value.memoryResident(bytesText(plan.resident.peak_bytes)),
    reduced: t.value.memoryReduced(bytesText(plan.reduced.peak_bytes)),
  };
  return (
    <Select
      label={t.value.memory}
      help={t.value.memoryHelp}
      options={["auto", "resident", "reduced"]}
      text={(choice) => texts[choice]}
      value={memory.value}
      onChange={(choice) => {
        memory.value = choice;
      }}
    />
  );
}
