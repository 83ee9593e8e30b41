/** Links to this page with a model and settings: in the part of an address after #, which is sent to no server. */

import { t } from "../text";
import { type Link, readLink } from "./link";
import type { Models } from "./models";
import { optionsOf, restore, toTexts } from "./options";
import type { Studio } from "./studio";

/** The address of this page with the present model and settings. A site without a list has only one model, without a name. */
export function linkOf(studio: Studio, models: Models): string {
  const { origin, pathname, search } = location;
  const model = models.current.peek()?.name;
  const record = { ...toTexts(optionsOf(studio)), ...(model ? { model } : {}) };
  return `${origin === "null" ? "" : origin}${pathname}${search}#${new URLSearchParams(record)}`;
}

/** Set the page to what its address has asked for, once, and tell if the site has not that model. */
export function useLink(studio: Studio, models: Models): void {
  const { link } = studio;
  if (link === undefined) return;
  studio.link = undefined;
  restore(studio, link.settings);
  if (link.settings.options.seed === undefined) studio.request.seed.value = undefined; // who made it has left it open
  const present = studio.manifest.peek()?.model.name ?? "";
  const isHere = link.model === "" || link.model === present || models.named(link.model) !== undefined;
  if (!isHere) studio.messages.notice(() => t.value.linkedModelMissing(link.model, present));
  leaveLink();
}

/** Take a link's settings out of the address: a reload is then of what the visitor has changed since. */
export function leaveLink(): void {
  if (readLink(location.hash) === undefined) return;
  showInAddress(location.pathname + location.search);
}

/** Show a link where the visitor can copy it. It is there until a setting changes. */
export function showInAddress(link: string): void {
  try {
    history.replaceState(null, "", link);
  } catch {
    // a sandboxed frame may have an address that cannot change
  }
}

/** Follow links that are pasted into the address while the page is open. */
export function listenForLinks(studio: Studio, models: Models): void {
  addEventListener("hashchange", () => {
    const link = readLink(location.hash);
    if (link !== undefined) follow(studio, models, link);
  });
}

function follow(studio: Studio, models: Models, link: Link): void {
  if (studio.running.peek() !== undefined) {
    studio.messages.notice(() => t.value.linkWhileDrawing);
    leaveLink();
    return;
  }
  studio.messages.clear();
  studio.link = link;
  const model = models.named(link.model);
  if (model !== undefined && model.url !== models.current.peek()?.url) models.choose(model);
  else if (studio.manifest.peek() !== undefined) useLink(studio, models);
  // else the manifest that is on its way brings the settings
}
