/** What a link to this page asks for. */

import { type RestoredSettings, settingsOfRecord } from "../../worker";

export interface Link {
  /** The model's name in the site's list; empty if the link leaves the model open. */
  readonly model: string;
  readonly settings: RestoredSettings;
}

/** What an address asks for by its part after #; undefined if that is no link's. */
export function readLink(hash: string): Link | undefined {
  const { model = "", ...record } = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  return "prompt" in record ? { model, settings: settingsOfRecord(record) } : undefined;
}
