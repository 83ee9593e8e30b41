/** Where the focus goes when what had it is gone: without this, keys begin at the top of the page again. */

import { useEffect, useRef } from "preact/hooks";

/** When one of `count` things is removed with the focus in it, `next` says what has it from then on. */
export function useFocusAfterRemoval(count: number, next: () => HTMLElement | null | undefined): void {
  const before = useRef(count);
  const focused = document.activeElement; // now, before what is removed leaves the page
  useEffect(() => {
    if (count < before.current && focused?.isConnected === false) next()?.focus({ preventScroll: true });
    before.current = count;
  }, [count]);
}
