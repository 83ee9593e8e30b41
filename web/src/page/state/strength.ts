/** How strongly a control image counts: presets over its weight and the share of the steps in which it does. */

/**
 * The presets are those of Krita AI Diffusion: a weaker control also ends earlier, which lets details go their own way.
 * `weight` is a share of the scale that the model recommends.
 */
export const STRENGTHS = {
  weak: { weight: 0.7, end: 0.5 },
  default: { weight: 1, end: 0.8 },
  strong: { weight: 1, end: 1 },
} as const;

export type StrengthName = keyof typeof STRENGTHS;

export interface Strength {
  readonly weight: number | undefined;
  readonly start: number | undefined;
  readonly end: number | undefined;
}

/** Return a preset's weight for a model that recommends `scale`, to two decimals. */
export function weightOf(name: StrengthName, scale: number): number {
  return Math.round(100 * STRENGTHS[name].weight * scale) / 100;
}

/** Return the name of the preset that has these numbers for a model that recommends `scale`; undefined if none has. */
export function strengthName({ weight, start, end }: Strength, scale: number): StrengthName | undefined {
  if (start !== 0) return undefined;
  const names = Object.keys(STRENGTHS) as StrengthName[];
  return names.find((name) => weightOf(name, scale) === weight && STRENGTHS[name].end === end);
}
