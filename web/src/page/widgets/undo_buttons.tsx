/** The way back from a change of a drawing, and forth again. */

import { useEffect, useRef } from "preact/hooks";
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
  const buttons = useRef<HTMLDivElement>(null);
  const { canUndo, canRedo } = drawing;
  const hadFocus = buttons.current?.contains(document.activeElement); // before the button that was pressed is disabled
  useEffect(() => {
    const hasFocus = buttons.current?.querySelector("button:enabled:focus") != null;
    if (hadFocus && !hasFocus) buttons.current?.querySelector<HTMLButtonElement>("button:enabled")?.focus();
  }, [canUndo, canRedo]);
  return (
    <div ref={buttons} class="undo">
      <button
        type="button"
        class="icon"
        title={t.value.undoKey}
        aria-label={undoLabel}
        disabled={!canUndo}
        onClick={() => drawing.undo()}
      >
        ↶
      </button>
      <button
        type="button"
        class="icon"
        title={t.value.redoKey}
        aria-label={redoLabel}
        disabled={!canRedo}
        onClick={() => drawing.redo()}
      >
        ↷
      </button>
    </div>
  );
}
