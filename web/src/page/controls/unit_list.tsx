/** The control units, and the button for another one. */

import type { Studio } from "../state/studio";
import { t } from "../text";
import { UnitCard } from "./unit_card";

export function UnitList({ studio }: { studio: Studio }) {
  return (
    <>
      {studio.controls.value.map((unit, i) => (
        <UnitCard key={unit.id} studio={studio} unit={unit} number={i + 1} />
      ))}
      {studio.unusedControlnets.length > 0 && (
        <button type="button" class="add" onClick={() => studio.addControl()}>
          + {t.value.addControl}
        </button>
      )}
    </>
  );
}
