/** A link with the present settings, for the clipboard. */

import { useSignal } from "@preact/signals";
import type { Studio } from "../state/studio";
import { linkOf } from "../state/visits";
import { t } from "../text";

export function ShareLink({ studio }: { studio: Studio }) {
  const isCopied = useSignal(false);
  const copy = async () => {
    const link = linkOf(studio);
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      isCopied.value = true;
      setTimeout(() => {
        isCopied.value = false;
      }, 2000);
    } catch {
      studio.messages.notice(t.peek().linkInAddress); // the browser forbids the clipboard
    }
  };
  return (
    <button type="button" title={t.value.shareHelp} onClick={() => void copy()}>
      {isCopied.value ? t.value.copied : t.value.share}
    </button>
  );
}
