/** Settings that survive a reload, and settings in a link: the part of an address after #, which is sent to no server. */

import { effect } from "@preact/signals";
import { type RestoredSettings, settingsOfRecord } from "../../worker";
import { isTextRecord, keep, readKept } from "./kept";
import { optionsOf, restore, toTexts } from "./options";
import type { Studio } from "./studio";

/** The address of this page with its present settings. */
export function linkOf(studio: Studio): string {
  const { origin, pathname, search } = location;
  return `${origin === "null" ? "" : origin}${pathname}${search}#${new URLSearchParams(toTexts(optionsOf(studio)))}`;
}

/** The settings of a link; undefined if the address has none. */
export function settingsOfLink(hash: string): RestoredSettings | undefined {
  const record = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  return "prompt" in record ? settingsOfRecord(record) : undefined;
}

/**
 * Once the bundle is known, restore the settings of the last visit with it, or those of the address, and keep each change from
 * then on. A bundle has settings of its own.
 */
export function rememberSettings(studio: Studio): void {
  let known: string | undefined;
  let isFirst = true;
  effect(() => {
    const name = studio.manifest.value?.model.name;
    if (name === known) return;
    known = name; // undefined: another bundle is opened, whose model may have the same name
    if (name === undefined) return;
    const linked = isFirst ? settingsOfLink(location.hash) : undefined;
    isFirst = false;
    queueMicrotask(() => {
      const kept = readKept(`settings of ${name}`, isTextRecord);
      if (linked !== undefined) restore(studio, linked);
      else if (kept !== undefined) {
        restore(studio, settingsOfRecord(kept));
        if (kept.seed === undefined) studio.request.seed.value = undefined; // the visitor has left it open
      }
    });
  });
  effect(() => {
    const name = studio.manifest.value?.model.name;
    const texts = toTexts(optionsOf(studio));
    if (name === undefined || name !== known) return;
    queueMicrotask(() => keep(`settings of ${name}`, texts));
  });
}
