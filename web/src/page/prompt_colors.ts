/** Swatches that write the prompt: one row for the circle's colour, one for the background's. */

export interface PromptColors {
  readonly fill: string;
  readonly background: string;
}

/** CSS colour name to r, g, b of 0..255. */
export type Palette = Readonly<Record<string, readonly [number, number, number]>>;

/** Write a prompt in the form that the bundled model was trained on. */
export function composePrompt({ fill, background }: PromptColors): string {
  return `${fill} circle with ${background} background`;
}

/** Read the colours from a prompt of that form; returns undefined for any other text. */
export function parsePrompt(prompt: string, palette: Palette): PromptColors | undefined {
  const match = /^\s*(\w+) circle with (\w+) background\s*$/i.exec(prompt);
  if (match === null) return undefined;
  const [fill, background] = [match[1].toLowerCase(), match[2].toLowerCase()];
  return fill in palette && background in palette ? { fill, background } : undefined;
}

/** Fill the two rows of `container` with swatches, and keep them and `input` consistent. */
export function linkSwatches(container: HTMLElement, input: HTMLInputElement, palette: Palette): void {
  const rows = [...container.querySelectorAll<HTMLElement>("[data-slot]")];
  for (const row of rows) {
    for (const [name, rgb] of Object.entries(palette)) row.append(swatch(row.dataset.slot as string, name, rgb));
  }
  const showChosen = () => {
    const chosen = parsePrompt(input.value, palette);
    for (const radio of container.querySelectorAll<HTMLInputElement>("input")) {
      radio.checked = chosen?.[radio.name as keyof PromptColors] === radio.value;
    }
  };
  container.addEventListener("change", ({ target }) => {
    const { name, value } = target as HTMLInputElement;
    const present = parsePrompt(input.value, palette) ?? { fill: "gold", background: "navy" };
    input.value = composePrompt({ ...present, [name]: value });
    showChosen();
  });
  input.addEventListener("input", showChosen);
  showChosen();
  container.hidden = false;
}

function swatch(slot: string, name: string, rgb: readonly number[]): HTMLElement {
  const label = document.createElement("label");
  label.title = name;
  label.style.setProperty("--color", `rgb(${rgb.join(" ")})`);
  const radio = document.createElement("input");
  Object.assign(radio, { type: "radio", name: slot, value: name, ariaLabel: name });
  label.append(radio);
  return label;
}
