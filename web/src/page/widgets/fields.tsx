/** Fields that show and set a signal. */

import { type Signal, useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import { numberText } from "../text";

interface NumberFieldProps {
  readonly label: string;
  readonly help?: string;
  readonly value: Signal<number | undefined>;
  readonly min?: number;
  readonly max?: number;
  readonly step?: number;
  /** What counts as long as no value is set. */
  readonly otherwise?: number;
}

/** A number that may be left empty: the bundle then decides. A field that knows how shows it, once nobody types in it. */
export function NumberField({ label, help, value, min, max, step = 1, otherwise }: NumberFieldProps) {
  const id = useId();
  const isEmptied = useSignal(false);
  const read = ({ currentTarget }: { currentTarget: HTMLInputElement }) => {
    const { value: text, valueAsNumber } = currentTarget;
    value.value = text === "" ? undefined : valueAsNumber;
    isEmptied.value = text === "";
  };
  const unset = isEmptied.value ? undefined : otherwise;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        type="number"
        min={min}
        max={max}
        step={step}
        value={value.value ?? unset ?? ""}
        onInput={read}
        onBlur={() => {
          isEmptied.value = false;
        }}
        aria-describedby={help && `${id}-help`}
      />
      {help && <small id={`${id}-help`}>{help}</small>}
    </div>
  );
}

interface SliderProps {
  readonly label: string;
  readonly value: number;
  readonly onInput: (value: number) => void;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  readonly unit?: string;
}

/** A range with its number beside it. */
export function Slider({ label, value, onInput, min, max, step, unit = "" }: SliderProps) {
  const id = useId();
  const text = numberText(value) + unit;
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <input
        id={id}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        aria-valuetext={text}
        onInput={({ currentTarget }) => onInput(currentTarget.valueAsNumber)}
      />
      <output for={id}>{text}</output>
    </div>
  );
}

interface ChoiceProps<T extends string> {
  readonly label: string;
  readonly options: readonly T[];
  readonly text: (option: T) => string;
  readonly value: T | undefined;
  readonly onChange: (option: T) => void;
  readonly help?: string;
  /** Whether the label is for screen readers only. */
  readonly hidesLabel?: boolean;
}

/** A few options side by side, of which one is chosen. */
export function Segments<T extends string>({
  label,
  options,
  text,
  value,
  onChange,
  help,
  hidesLabel,
}: ChoiceProps<T>) {
  const id = useId();
  return (
    <fieldset class="segments" aria-describedby={help && `${id}-help`}>
      <legend class={hidesLabel ? "visually-hidden" : undefined}>{label}</legend>
      <div class="segment-row">
        {options.map((option) => (
          <label key={option}>
            <input type="radio" name={id} value={option} checked={option === value} onChange={() => onChange(option)} />
            {text(option)}
          </label>
        ))}
      </div>
      {help && <small id={`${id}-help`}>{help}</small>}
    </fieldset>
  );
}

/** Many options, of which one is chosen. */
export function Select<T extends string>({ label, options, text, value, onChange, help }: ChoiceProps<T>) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        value={value}
        onChange={({ currentTarget }) => onChange(currentTarget.value as T)}
        aria-describedby={help && `${id}-help`}
      >
        {options.map((option) => (
          <option key={option} value={option} selected={option === value}>
            {text(option)}
          </option>
        ))}
      </select>
      {help && <small id={`${id}-help`}>{help}</small>}
    </div>
  );
}

interface CheckboxProps {
  readonly label: string;
  readonly title?: string;
  readonly checked: boolean;
  readonly onChange: (checked: boolean) => void;
}

export function Checkbox({ label, title, checked, onChange }: CheckboxProps) {
  return (
    <label class="choice" title={title}>
      <input type="checkbox" checked={checked} onChange={({ currentTarget }) => onChange(currentTarget.checked)} />
      {label}
    </label>
  );
}
