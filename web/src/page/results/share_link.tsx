/** A link with the present model and settings, for the clipboard. */

import { useSignal } from "@preact/signals";
import { linkOf, showInAddress } from "../state/links";
import type { Models } from "../state/models";
import type { Studio } from "../state/studio";
import { t } from "../text";

export function ShareLink({ studio, models }: { studio: Studio; models: Models }) {
  const isCopied = useSignal(false);
  const copy = async () => {
    const link = linkOf(studio, models);
    try {
      await navigator.clipboard.writeText(link);
      isCopied.value = true;
      setTimeout(() => {
        isCopied.value = false;
      }, 2000);
    } catch {
      showInAddress(link);
      studio.messages.notice(() => t.value.linkInAddress); // the browser forbids the clipboard
    }
  };
  return (
    <button type="button" class="share" title={t.value.shareHelp} onClick={() => void copy()}>
      {isCopied.value ? t.value.copied : t.value.share}
    </button>
  );
}
