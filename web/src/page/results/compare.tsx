/** Two pictures in one frame, and a line between them that the visitor moves. */

import { useSignal } from "@preact/signals";
import type { Size } from "../drawing/marks";
import { t } from "../text";
import { Picture } from "./picture";

interface Props {
  readonly before: Blob;
  readonly after: Blob;
  /** Of the frame, in pixels: that of `after`. */
  readonly size: Size | undefined;
}

export function Compare({ before, after, size }: Props) {
  const share = useSignal(50);
  return (
    <div class="compare" style={{ "--share": `${share.value}%` }}>
      <Picture png={after} label={t.value.compareAfter} size={size} />
      <div class="before">
        <Picture png={before} label={t.value.compareBefore} />
      </div>
      <input
        type="range"
        min={0}
        max={100}
        value={share.value}
        aria-label={t.value.compareLine}
        onInput={({ currentTarget }) => {
          share.value = currentTarget.valueAsNumber;
        }}
      />
    </div>
  );
}
