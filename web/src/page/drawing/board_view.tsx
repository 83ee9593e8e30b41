/** A canvas that shows a drawing, and that the visitor draws on. */

import { useEffect, useRef } from "preact/hooks";
import { t } from "../text";
import { attachBoard, type Drawable } from "./board";

interface BoardProps {
  readonly drawing: Drawable;
  readonly id?: string;
  readonly label: string;
  readonly describedBy?: string;
  /** Whether nothing can be drawn now: a finger then scrolls over it. */
  readonly isIdle?: boolean;
}

export function BoardView({ drawing, id, label, describedBy, isIdle }: BoardProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => attachBoard(canvas.current as HTMLCanvasElement, drawing), [drawing]);
  const { width, height } = drawing.size;
  return (
    <canvas
      ref={canvas}
      id={id}
      class={isIdle ? "board idle" : "board"}
      style={{ "--ratio": width / height, aspectRatio: `${width} / ${height}` }}
      tabIndex={isIdle ? undefined : 0}
      role={isIdle ? "img" : "application"}
      aria-roledescription={isIdle ? undefined : t.value.boardRole}
      aria-label={label}
      aria-describedby={describedBy}
    />
  );
}
