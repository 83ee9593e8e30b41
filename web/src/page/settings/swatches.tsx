/** Swatches that write the prompt: one row for the circle's colour, one for the background's. */

import type { Signal } from "@preact/signals";
import { useId } from "preact/hooks";
import { t } from "../text";
import { composePrompt, type Palette, type PromptColors, parsePrompt } from "./prompt_colors";

/** The colour names of the bundled model; empty if the page is built without the model. */
const palettes = import.meta.glob<Palette>("../../../../mlc_controlnet/models/circles/colors.json", {
  eager: true,
  import: "default",
});
const FIRST: PromptColors = { fill: "gold", background: "navy" };

export function Swatches({ prompt }: { prompt: Signal<string> }) {
  const id = useId();
  const palette = Object.values(palettes)[0];
  if (palette === undefined) return null;
  const chosen = parsePrompt(prompt.value, palette);
  const rows = [
    ["fill", t.value.circleColor],
    ["background", t.value.backgroundColor],
  ] as const;
  return (
    <div id="colors">
      {rows.map(([slot, label]) => (
        <fieldset key={slot} class="swatches">
          <legend>{label}</legend>
          {Object.entries(palette).map(([name, rgb]) => (
            <label key={name} title={name} style={{ "--color": `rgb(${rgb.join(" ")})` }}>
              <input
                type="radio"
                name={`${id}-${slot}`}
                value={name}
                aria-label={name}
                checked={chosen?.[slot] === name}
                onChange={() => {
                  prompt.value = composePrompt({ ...(chosen ?? FIRST), [slot]: name });
                }}
              />
            </label>
          ))}
        </fieldset>
      ))}
    </div>
  );
}
