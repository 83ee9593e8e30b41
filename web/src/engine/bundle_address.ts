/** The address of a bundle on its host: a folder, and a query that every request repeats. */

import { MANIFEST_NAME } from "./constants.ts";
import { UserError } from "./errors.ts";

/** In the addresses of bundles that no host has. */
export const OWN_FOLDER = "own-bundle";

/** The address of a bundle's folder, in the parts that requests are made of. */
export interface BundleAddress {
  /** Absolute, with a slash at its end, without query. It names the bundle in the cache and in messages. */
  readonly folder: string;
  /** "?token=…" or "". It may hold a secret, so it is in no message and in no key of the cache. */
  readonly query: string;
}

/**
 * Resolve the address of a bundle's folder or of its manifest. A relative address is relative to the page.
 *
 * Throws UserError for anything that is not an address.
 */
export function resolveBundleUrl(bundleUrl: string | URL): BundleAddress {
  const here = typeof location === "undefined" ? undefined : location.href;
  const given: unknown = bundleUrl; // a script without types may pass anything
  const isAddress = (typeof given === "string" && given !== "") || given instanceof URL;
  if (!isAddress || !URL.canParse(given, here)) {
    const wanted =
      here === undefined ? "the absolute address of a bundle's folder" : "the address of a bundle's folder";
    const example = new URL("circles-webgpu/", here ?? "https://example.org/").href;
    throw new UserError("bundleUrl", given === "" ? "''" : String(given), wanted, `pass for example "${example}"`);
  }
  const { origin, pathname, protocol, host, search } = new URL(given, here);
  const folder = pathname.endsWith(`/${MANIFEST_NAME}`) ? pathname.slice(0, -MANIFEST_NAME.length) : pathname;
  const root = origin === "null" ? `${protocol}//${host}` : origin; // file: has no origin
  return { folder: `${root}${folder}${folder.endsWith("/") ? "" : "/"}`, query: search };
}

/** Whether the bundle came from a folder of the visitor: no host has it. */
export function isOwn({ folder }: BundleAddress): boolean {
  return folder.includes(`/${OWN_FOLDER}/`);
}

/** Return the address of one of the bundle's files, without the query. `path` is relative, with /. */
export function fileUrl({ folder }: BundleAddress, path: string): string {
  return folder + path.split("/").map(encodeURIComponent).join("/"); // a name may contain # or ?
}
