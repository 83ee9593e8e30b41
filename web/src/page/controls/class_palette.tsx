/** What the brush paints on a map of classes: a list to search, each with its colour. */

import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import { findClasses } from "../classes/ade20k";
import type { ControlUnit } from "../state/control_unit";
import { language, t } from "../text";
import { FillBoard } from "./fill_board";

export function ClassPalette({ unit }: { unit: ControlUnit }) {
  const id = useId();
  const wanted = useSignal("");
  const chosen = unit.paintClass.value;
  if (chosen === undefined) return null;
  const found = findClasses(wanted.value, language.value);
  return (
    <div class="classes">
      <input
        type="search"
        aria-label={t.value.findClass}
        placeholder={t.value.findClass}
        value={wanted.value}
        onInput={({ currentTarget }) => {
          wanted.value = currentTarget.value;
        }}
      />
      <fieldset class="class-list">
        <legend class="visually-hidden">{t.value.classes}</legend>
        {found.map((each) => (
          <label key={each.names.en} style={{ "--color": `rgb(${each.color.join(" ")})` }}>
            <input type="radio" name={id} checked={each === chosen} onChange={() => unit.paint(each)} />
            {each.names[language.value] ?? each.names.en}
          </label>
        ))}
        {found.length === 0 && <p>{t.value.noClass}</p>}
      </fieldset>
      <FillBoard unit={unit} />
    </div>
  );
}
