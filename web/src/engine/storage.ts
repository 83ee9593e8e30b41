/** The browser's storage: is there room for what is to be downloaded, and does it stay? */

import { gigabytes } from "./memory.ts";

/**
 * Ask how much room the browser grants to this site. Returns a sentence for the visitor if `bytes` more do not fit, which
 * prevents no download: the bundle is then only not kept.
 */
export async function noticeOfRoom(bytes: number): Promise<string | undefined> {
  try {
    const { quota, usage = 0 } = (await globalThis.navigator?.storage?.estimate()) ?? {};
    if (quota === undefined || bytes <= quota - usage) return undefined;
    const room = gigabytes(Math.max(0, quota - usage));
    return (
      `the browser has room for ${room} of this site's files and the model takes ${gigabytes(bytes)}: the next visit ` +
      "downloads it again; free space on the disk, or leave the private window"
    );
  } catch {
    return undefined; // a sandboxed frame
  }
}

/** Ask the browser to keep this site's files when it runs short of space. Only a page may ask, a worker cannot. */
export async function persistStorage(): Promise<boolean> {
  try {
    const storage = globalThis.navigator?.storage as (StorageManager & { persist?(): Promise<boolean> }) | undefined;
    return (await storage?.persist?.()) ?? false;
  } catch {
    return false;
  }
}
