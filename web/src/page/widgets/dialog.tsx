/** A dialog over the page. Its button, Esc and a click beside it close it, and what had the focus has it again. */

import type { ComponentChildren, RefObject, TargetedMouseEvent } from "preact";
import { useRef } from "preact/hooks";
import { t } from "../text";

interface DialogProps {
  /** What opens and closes it. */
  readonly dialog: RefObject<HTMLDialogElement | null>;
  readonly class: string;
  /** Its name, for those who do not see what it shows. */
  readonly label: string;
  /** Whether its name is shown above the rest. */
  readonly isTitled?: boolean;
  readonly onClose?: () => void;
  readonly children: ComponentChildren;
}

/** `closedby="any"` would do what the handlers do, but not in Safari. */
export function Dialog({ dialog, class: kind, label, isTitled = false, onClose, children }: DialogProps) {
  const isPressedBeside = useRef(false);
  const close = () => dialog.current?.close();
  const notePress = (event: TargetedMouseEvent<HTMLDialogElement>) => {
    isPressedBeside.current = isBeside(event);
  };
  const closeBeside = (event: TargetedMouseEvent<HTMLDialogElement>) => {
    if (isPressedBeside.current && isBeside(event)) close(); // who marks text may release the button beside the dialog
  };
  const closeButton = (
    <button type="button" class="icon close" aria-label={t.value.close} onClick={close}>
      ✕
    </button>
  );
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Esc is the key for it
    <dialog
      ref={dialog}
      class={kind}
      aria-label={label}
      onClose={onClose}
      onPointerDown={notePress}
      onClick={closeBeside}
    >
      {isTitled ? (
        <div class="card-head">
          <h2>{label}</h2>
          {closeButton}
        </div>
      ) : (
        closeButton
      )}
      {children}
    </dialog>
  );
}

/** Whether it happened on the backdrop, which belongs to the dialog and lies outside its box. */
function isBeside({ target, currentTarget, clientX, clientY }: TargetedMouseEvent<HTMLDialogElement>): boolean {
  const { left, right, top, bottom } = currentTarget.getBoundingClientRect();
  return target === currentTarget && (clientX < left || clientX > right || clientY < top || clientY > bottom);
}
