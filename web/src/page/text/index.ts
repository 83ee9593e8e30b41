/** The page's texts in the visitor's language: `t.value.generate`. */

import { computed, signal } from "@preact/signals";
import { en, type Texts } from "./en";

export type { Texts };

/** The languages that the page speaks. */
export const LANGUAGES: Readonly<Record<string, Texts>> = { en };

export const language = signal("en");

export const t = computed(() => LANGUAGES[language.value] ?? en);
