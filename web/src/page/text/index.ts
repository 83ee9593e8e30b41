/** The page's texts in the visitor's language: `t.value.generate`. */

import { computed, effect, signal } from "@preact/signals";
import { isText, keep, readKept } from "../state/kept";
import { de } from "./de";
import { en, type Texts } from "./en";

export type { Texts };

/** The languages that the page speaks. */
export const LANGUAGES: Readonly<Record<string, Texts>> = { en, de };

const KEPT = "language";

export const language = signal(firstLanguage());

export const t = computed(() => LANGUAGES[language.value] ?? en);

/** "0.5", in German "0,5". */
export function numberText(number: number): string {
  return number.toLocaleString(t.value.locale, { maximumFractionDigits: 6, useGrouping: false });
}

/** Speak another language, also at the next visit. */
export function setLanguage(code: string): void {
  language.value = code;
  keep(KEPT, code);
}

/** That of the last visit, else the first of the browser's that the page speaks. */
function firstLanguage(): string {
  const wanted = [readKept(KEPT, isText) ?? "", ...(globalThis.navigator?.languages ?? [])];
  return wanted.map((code) => code.split("-")[0]).find((code) => code in LANGUAGES) ?? "en";
}

effect(() => {
  if (typeof document !== "undefined") document.documentElement.lang = language.value;
});
