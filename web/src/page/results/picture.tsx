/** A PNG file as an image. */

import { useEffect, useMemo } from "preact/hooks";
import type { Size } from "../drawing/marks";

interface Props {
  readonly png: Blob;
  readonly label: string;
  /** In pixels: the element takes its place before the file is decoded. */
  readonly size?: Size;
}

/** Its address ends with the element. */
export function Picture({ png, label, size }: Props) {
  const url = useMemo(() => URL.createObjectURL(png), [png]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return <img src={url} alt={label} width={size?.width} height={size?.height} loading="lazy" />;
}
