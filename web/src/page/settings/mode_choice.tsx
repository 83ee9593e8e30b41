/** What a drawing starts from. */

import type { Mode, Studio } from "../state/studio";
import { t } from "../text";
import { Segments } from "../widgets/fields";

export function ModeChoice({ studio }: { studio: Studio }) {
  const { modes, request } = studio;
  if (modes.value.length < 2) return null;
  return (
    <Segments<Mode>
      label={t.value.mode}
      options={modes.value}
      text={(mode) => t.value.modes[mode]}
      value={request.mode.value}
      onChange={(mode) => {
        request.mode.value = mode;
      }}
      help={t.value.modeHelp[request.mode.value]}
    />
  );
}
