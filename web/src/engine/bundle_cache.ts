/**
 * What a browser keeps of a bundle: files in the Cache API, by their sha256, and the manifest of a version that is whole.
 *
 * Nothing in here is needed: where the cache is forbidden, full or damaged, files come from the host.
 */

import type { BundleAddress } from "./bundle_address.ts";

const LENGTH = "content-length";
const FILE_KEYS = "https://sha256.invalid/";

/** A cache of one bundle's files. */
export class BundleCache {
  private constructor(private readonly cache: Cache | undefined) {}

  /** Node has no cache. A page over plain http, a sandboxed frame and some private windows have one that throws. */
  static async open(address: BundleAddress): Promise<BundleCache> {
    try {
      return new BundleCache(typeof caches === "undefined" ? undefined : await caches.open(cacheName(address)));
    } catch {
      return new BundleCache(undefined);
    }
  }

  /** Whether anything of a bundle was ever kept. Unlike `open`, it makes no cache. */
  static async has(address: BundleAddress): Promise<boolean> {
    try {
      return typeof caches !== "undefined" && (await caches.has(cacheName(address)));
    } catch {
      return false;
    }
  }

  /** Delete everything that was ever kept of a bundle. */
  static async purge(address: BundleAddress): Promise<void> {
    if (typeof caches !== "undefined") await caches.delete(cacheName(address));
  }

  /** Whether there is a cache at all. */
  get exists(): boolean {
    return this.cache !== undefined;
  }

  /** Read an entry. One that cannot be read, because the browser lost its bytes, counts as none. */
  async get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      const response = await this.cache?.match(key);
      return response && new Uint8Array(await response.arrayBuffer());
    } catch {
      return undefined;
    }
  }

  /** Keep an entry. Returns whether there was room; true without a cache. */
  async put(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    try {
      await this.cache?.put(key, new Response(bytes, { headers: { [LENGTH]: String(bytes.length) } }));
      return true;
    } catch {
      return false;
    }
  }

  /** The bytes of an entry, without reading it; 0 if there is none, or an earlier version of the engine kept it. */
  async size(key: string): Promise<number> {
    try {
      return Number((await this.cache?.match(key))?.headers.get(LENGTH) ?? 0);
    } catch {
      return 0;
    }
  }

  async delete(key: string): Promise<void> {
    await this.cache?.delete(key).catch(() => {});
  }

  /** List the keys of all entries. */
  async keys(): Promise<string[]> {
    try {
      return ((await this.cache?.keys()) ?? []).map(({ url }) => url);
    } catch {
      return [];
    }
  }
}

/** The key of a file. The Cache API accepts only http addresses as keys; nothing fetches this one. */
export function cacheKey({ sha256 }: { readonly sha256: string }): string {
  return FILE_KEYS + sha256;
}

/** Whether a key is that of a file, and not of a manifest. */
export function isOfFile(key: string): boolean {
  return key.startsWith(FILE_KEYS);
}

/**
 * Run `action` while no other tab of this origin runs one of the same name. The browser ends the lock of a tab that is closed.
 *
 * An abort ends the waiting. Where there are no locks, as in Node, `action` runs at once.
 */
export async function alone<T>(name: string, signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
  const { locks } = globalThis.navigator ?? {};
  if (locks === undefined) return action();
  let begun = false;
  try {
    return await locks.request(`mlc-controlnet ${name}`, signal === undefined ? {} : { signal }, () => {
      begun = true;
      return action();
    });
  } catch (error) {
    // A sandboxed frame has locks that refuse every request.
    if (begun || !(error instanceof DOMException) || error.name !== "SecurityError") throw error;
    return action();
  }
}

function cacheName({ folder }: BundleAddress): string {
  return `mlc-controlnet ${folder}`;
}
