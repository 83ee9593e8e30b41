/** How strongly a control image counts: presets over its weight and the share of the steps in which it does. */

/** The presets are those of Krita AI Diffusion: a weaker control also ends earlier, which lets details go their own way. */
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

/** Return the name of the preset that has these numbers; undefined if none has. */
export function strengthName({ weight, start, end }: Strength): StrengthName | undefined {
  if (start !== 0) return undefined;
  const names = Object.keys(STRENGTHS) as StrengthName[];
  return names.find((name) => STRENGTHS[name].weight === weight && STRENGTHS[name].end === end);
}
