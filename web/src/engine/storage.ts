/** The browser's storage: is there room for what is to be downloaded, and does it stay? */

import { type Notice, noticeOf } from "./notices.ts";

/**
 * Ask how much room the browser grants to this site. Returns a notice if `bytes` more do not fit, which
 * prevents no download: the bundle is then only not kept.
 */
export async function noticeOfRoom(bytes: number): Promise<Notice | undefined> {
  try {
    const { quota, usage = 0 } = (await globalThis.navigator?.storage?.estimate()) ?? {};
    if (quota === undefined || bytes <= quota - usage) return undefined;
    return noticeOf("no-room", { roomBytes: Math.max(0, quota - usage), neededBytes: bytes });
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
