/** Settings that survive a reload, by the bundle. */

import { effect } from "@preact/signals";
import { settingsOfRecord } from "../../worker";
import { isTextRecord, keep, readKept } from "./kept";
import { leaveLink, useLink } from "./links";
import type { Models } from "./models";
import { optionsOf, restore, toTexts } from "./options";
import type { Studio } from "./studio";

/**
 * Once the bundle is known, restore the settings of the last visit with it, or those of the address, and keep each change from
 * then on. A bundle has settings of its own.
 */
export function rememberSettings(studio: Studio, models: Models): void {
  let known: string | undefined;
  effect(() => {
    const name = studio.manifest.value?.model.name;
    if (name === known) return;
    known = name; // undefined: another bundle is opened, whose model may have the same name
    if (name === undefined) return;
    queueMicrotask(() => {
      const kept = readKept(`settings of ${name}`, isTextRecord);
      if (studio.link !== undefined) useLink(studio, models);
      else if (kept !== undefined) {
        restore(studio, settingsOfRecord(kept));
        if (kept.seed === undefined) studio.request.seed.value = undefined; // the visitor has left it open
      }
    });
  });
  effect(() => {
    const name = studio.manifest.value?.model.name;
    const texts = toTexts(optionsOf(studio));
    if (studio.link === undefined) leaveLink(); // one that is shown there is of other settings now
    if (name === undefined || name !== known) return;
    queueMicrotask(() => keep(`settings of ${name}`, texts));
  });
}
