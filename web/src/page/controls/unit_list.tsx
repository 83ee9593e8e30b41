/** The control units, and the button for another one. */

import { useRef } from "preact/hooks";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { useFocusAfterRemoval } from "../widgets/focus";
import { UnitCard } from "./unit_card";

export function UnitList({ studio }: { studio: Studio }) {
  const add = useRef<HTMLButtonElement>(null);
  useFocusAfterRemoval(studio.controls.value.length, () => add.current);
  return (
    <>
      {studio.controls.value.map((unit, i) => (
        <UnitCard key={unit.id} studio={studio} unit={unit} number={i + 1} />
      ))}
      {studio.unusedControlnets.length > 0 && (
        <button ref={add} type="button" class="add" onClick={() => studio.addControl()}>
          + {t.value.addControl}
        </button>
      )}
    </>
  );
}
