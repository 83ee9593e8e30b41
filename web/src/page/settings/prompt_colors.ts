/** The prompt that the bundled model knows: a colour for the circle, and one for the background. */

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
