/** A PNG file as an image. */

import { useEffect, useMemo } from "preact/hooks";

/** Its address ends with the element. */
export function Picture({ png, label }: { png: Blob; label: string }) {
  const url = useMemo(() => URL.createObjectURL(png), [png]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return <img src={url} alt={label} loading="lazy" />;
}
