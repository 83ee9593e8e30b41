/** A canvas that shows pixels. */

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Image } from "../../worker";
import { paintImage } from "./canvas";

interface PictureProps {
  readonly image: Image | undefined;
  /** Empty: something beside it says the same. */
  readonly label: string;
  readonly id?: string;
  readonly class?: string;
}

export function PictureView({ image, label, id, class: name }: PictureProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    if (canvas.current === null) return;
    if (image === undefined) canvas.current.getContext("2d")?.reset();
    else paintImage(canvas.current, image);
  }, [image]);
  const spoken = label === "" ? ({ "aria-hidden": true } as const) : ({ role: "img", "aria-label": label } as const);
  return <canvas ref={canvas} id={id} class={name} {...spoken} />;
}
