/** How strongly a control image counts: presets over its weight and the share of the steps in which it does. */

/**
 * The numbers are those of Krita AI Diffusion: a weaker control also ends earlier, which lets details go their own way.
 * `weight` is a share of the scale that the model recommends; `default` is what the model does when nothing is asked.
 */
export const STRENGTHS = {
  weak: { weight: 0.7, end: 0.5 },
  medium: { weight: 1, end: 0.8 },
  default: { weight: 1, end: 1 },
} as const;

export type StrengthName = keyof typeof STRENGTHS;

export interface Strength {
  readonly weight: number | undefined;
  readonly start: number | undefined;
  readonly end: number | undefined;
}

/** Return a preset's weight for a model that recommends `scale`: the scale itself, or a share of it to two decimals. */
export function weightOf(name: StrengthName, scale: number): number {
  const { weight } = STRENGTHS[name];
  return weight === 1 ? scale : Math.round(100 * weight * scale) / 100;
}

/** Return the name of the preset that has these numbers for a model that recommends `scale`; undefined if none has. */
export function strengthName({ weight, start, end }: Strength, scale: number): StrengthName | undefined {
  if (start !== 0) return undefined;
  const names = Object.keys(STRENGTHS) as StrengthName[];
  return names.find((name) => weightOf(name, scale) === weight && STRENGTHS[name].end === end);
}
