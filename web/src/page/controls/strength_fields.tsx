/** How a unit counts: strength as a preset or in numbers, and what gives way where it meets the prompt. */

import { useSignal } from "@preact/signals";
import { CONTROL_MODES, type ControlUnit } from "../state/control_unit";
import { STRENGTHS, type StrengthName, strengthName } from "../state/strength";
import { t } from "../text";
import { NumberField, Segments } from "../widgets/fields";

const NAMES = [...(Object.keys(STRENGTHS) as StrengthName[]), "custom"] as const;

export function StrengthFields({ unit }: { unit: ControlUnit }) {
  const { weight, start, end, mode } = unit;
  const isCustom = useSignal(false);
  const numbers = { weight: weight.value, start: start.value, end: end.value };
  const preset = strengthName(numbers, unit.recommendedWeight.value ?? 1);
  const chosen = isCustom.value || preset === undefined ? "custom" : preset;
  const choose = (name: (typeof NAMES)[number]) => {
    isCustom.value = name === "custom";
    if (name !== "custom") unit.setStrength(name);
  };
  const { options } = t.value;
  return (
    <div class="strength">
      <Segments
        label={t.value.strength}
        options={NAMES}
        text={(name) => (name === "custom" ? t.value.custom : t.value.strengths[name])}
        value={chosen}
        onChange={choose}
      />
      {chosen === "custom" && (
        <div class="numbers">
          <NumberField label={options.controlnetConditioningScale} value={weight} min={0} step={0.1} />
          <NumberField label={options.controlGuidanceStart} value={start} min={0} max={1} step={0.1} />
          <NumberField label={options.controlGuidanceEnd} value={end} min={0} max={1} step={0.1} />
        </div>
      )}
      <Segments
        label={options.controlMode}
        options={CONTROL_MODES}
        text={(name) => t.value.controlModes[name]}
        value={mode.value}
        onChange={(name) => {
          mode.value = name;
        }}
        help={t.value.controlModeHelp[mode.value]}
      />
    </div>
  );
}
