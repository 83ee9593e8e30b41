/** The way back from a change of a drawing, and forth again. */

import { t } from "../text";

interface Undoable {
  readonly canUndo: boolean;
  readonly canRedo: boolean;
  undo(): void;
  redo(): void;
}

interface UndoProps {
  readonly drawing: Undoable;
  readonly undoLabel: string;
  readonly redoLabel: string;
}

export function UndoButtons({ drawing, undoLabel, redoLabel }: UndoProps) {
  return (
    <div class="undo">
      <button
        type="button"
        class="icon"
        title={t.value.undoKey}
        aria-label={undoLabel}
        disabled={!drawing.canUndo}
        onClick={() => drawing.undo()}
      >
        ↶
      </button>
      <button
        type="button"
        class="icon"
        title={t.value.redoKey}
        aria-label={redoLabel}
        disabled={!drawing.canRedo}
        onClick={() => drawing.redo()}
      >
        ↷
      </button>
    </div>
  );
}
