/**
 * Options as text: their names in error messages and in a PNG file.
 *
 * Twin: mlc_controlnet/runtime/option_text.py.
 */

/** `guidanceScale` as error messages write it: guidance scale. */
export function words(name: string): string {
  return separated(name, " ");
}

/** A name in camelCase in small letters, with a separator between its words and before a number. */
export function separated(name: string, separator: string): string {
  return name.replace(/[A-Z]|\d+/g, (letter) => separator + letter.toLowerCase());
}
