/**
 * Fetch a bundle from a static host: every byte is checked against the manifest's sha256 before it is used, and kept in
 * the browser's cache under that hash. The twin of mlc_controlnet/bundle/reader.py.
 */

import { type BundleAddress, fileUrl, isOwn, resolveBundleUrl } from "./bundle_address.ts";
import { alone, BundleCache, cacheKey } from "./bundle_cache.ts";
import { MANIFEST_NAME } from "./constants.ts";
import { BrokenConnection, type Download, download, type ReadOptions } from "./download.ts";
import { UserError } from "./errors.ts";
import { type FileEntry, type Manifest, parseManifest } from "./manifest.ts";
import { checkSecureContext } from "./secure_context.ts";

export type { ReadOptions } from "./download.ts";

const REMEDY =
  "load the page again; if that does not help, copy the bundle to the host again: it was changed after its build";
const LESS_THAN_SIGN = 0x3c;

/** Cache what was verified, if there is room. */
type Put = (key: string, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;

/** A bundle whose manifest was fetched and is sound; its files are checked as they are read. */
export interface Bundle {
  readonly url: string;
  readonly manifest: Manifest;
  /** The sha256 of manifest.json, which in turn lists the sha256 of every file. */
  readonly sha256: string;
  /**
   * Read one listed file from the cache or the host, and verify its size and hash.
   *
   * `onBytes` receives the number of bytes as they arrive. Throws UserError if the host's file is missing, short, long
   * or altered.
   */
  readFile(path: string, options?: ReadOptions): Promise<Uint8Array<ArrayBuffer>>;
  /** List the paths of the files that the cache has. They are not verified. */
  kept(): Promise<ReadonlySet<string>>;
  /**
   * Keep this version of the bundle in the cache, with its manifest, and delete other versions. Does nothing if the cache had
   * no room for every file.
   */
  keep(): Promise<void>;
}

/**
 * Fetch and validate the manifest of the bundle at `bundleUrl`, a folder. Nothing else is fetched yet. If the host does not
 * answer, or answers that it is out of order, this returns the version that the cache keeps.
 *
 * Throws UserError if there is no bundle or its manifest is not valid.
 */
export async function openBundle(bundleUrl: string | URL, signal?: AbortSignal): Promise<Bundle> {
  checkSecureContext();
  const address = resolveBundleUrl(bundleUrl);
  const url = fileUrl(address, MANIFEST_NAME);
  const cache = await BundleCache.open(address);
  const { bytes, manifest, isKept } = await readManifest(cache, address, signal);
  const entries = new Map(manifest.files.map((entry) => [entry.path, entry]));
  const current = new Set(manifest.files.map(cacheKey));
  let isWhole = true;
  const dropOthers = async () => {
    for (const key of await cache.keys()) if (!current.has(key)) await cache.delete(key);
  };
  const put: Put = async (key, content) => {
    if (await cache.put(key, content)) return;
    await dropOthers(); // and the manifest of the version before, which is no longer whole
    if (!(await cache.put(key, content))) isWhole = false;
  };
  return {
    url: address.folder,
    manifest,
    sha256: await sha256Hex(bytes),
    async readFile(path, options = {}) {
      const entry = entries.get(path);
      if (entry === undefined) throw new Error(`${path} is not listed in ${url}`);
      options.signal?.throwIfAborted();
      const cached = await readCached(cache, entry, options);
      if (cached !== undefined) return cached;
      if (!cache.exists) return readFromHost(put, address, entry, options);
      // Another tab may be downloading this file: it is then in the cache when the turn comes here.
      return alone(entry.sha256, options.signal, async () => {
        return (await readCached(cache, entry, options)) ?? (await readFromHost(put, address, entry, options));
      });
    },
    async kept() {
      const keys = new Set(await cache.keys());
      return new Set(manifest.files.filter((entry) => keys.has(cacheKey(entry))).map(({ path }) => path));
    },
    async keep() {
      if (!isWhole) return;
      if (!isKept) await dropOthers(); // else a newer version may be on its way
      await put(url, bytes);
      if (isWhole) current.add(url); // a further component that has no room does not take it away
    },
  };
}

/** Delete everything that was ever cached of the bundle at `bundleUrl`. */
export async function purgeBundle(bundleUrl: string | URL): Promise<void> {
  await BundleCache.purge(resolveBundleUrl(bundleUrl));
}

/** Settles when the latest hash is there. */
let hashing: Promise<unknown> = Promise.resolve();

/** The SHA-256 of `bytes` as 64 hex digits. One at a time: the browser takes a copy of the bytes for each. */
export async function sha256Hex(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = hashing.then(() => crypto.subtle.digest("SHA-256", bytes));
  hashing = hash.catch(() => {});
  const digest = new Uint8Array(await hash);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The host's manifest; if the host is not there, or a manifest cut off on its way, the one that the cache keeps. */
async function readManifest(
  cache: BundleCache,
  address: BundleAddress,
  signal?: AbortSignal,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; manifest: Manifest; isKept: boolean }> {
  const url = fileUrl(address, MANIFEST_NAME);
  if (isOwn(address)) {
    const bytes = await cache.get(url);
    if (bytes !== undefined) return { bytes, manifest: parseManifest(bytes, url), isKept: true };
    const [got, remedy] = ["nothing in the browser's storage", "drop its folder again"];
    throw new UserError("own bundle", got, "its files", remedy, "bad-bundle");
  }
  const wanted = "a bundle's manifest.json";
  const remedy =
    "build a bundle with python -m mlc_controlnet build --target webgpu and pass the address of its folder";
  try {
    const { bytes } = await download({ url, query: address.query, wanted, remedy }, { signal });
    if (bytes[0] === LESS_THAN_SIGN) {
      const other = "check bundleUrl: this host answers with a page where it has no file";
      throw new UserError(url, "a web page", wanted, other, "bad-bundle");
    }
    return { bytes, manifest: parseManifest(bytes, url), isKept: false };
  } catch (error) {
    const kept = error instanceof BrokenConnection ? await cache.get(url) : undefined;
    if (kept === undefined) throw error;
    return { bytes: kept, manifest: parseKept(kept, url, error), isKept: true };
  }
}

/** The manifest that the cache keeps. Throws `otherwise` if an earlier version of the engine kept it, in another format. */
function parseKept(bytes: Uint8Array, url: string, otherwise: unknown): Manifest {
  try {
    return parseManifest(bytes, url);
  } catch {
    throw otherwise;
  }
}

async function readCached(
  cache: BundleCache,
  entry: FileEntry,
  { onBytes }: ReadOptions,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const bytes = await cache.get(cacheKey(entry));
  if (bytes === undefined) return undefined;
  if ((await fault(entry, bytes)) !== undefined) {
    await cache.delete(cacheKey(entry)); // damaged on this machine: the host's copy replaces it
    return undefined;
  }
  onBytes?.(bytes.length);
  return bytes;
}

async function readFromHost(
  put: Put,
  address: BundleAddress,
  entry: FileEntry,
  options: ReadOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const url = fileUrl(address, entry.path);
  const wanted = `${entry.bytes} bytes, sha256 ${entry.sha256}`;
  const source = { url, query: address.query, wanted, remedy: REMEDY, bytes: entry.bytes };
  let file = await download(source, options);
  let found = await faultOf(entry, file);
  if (found !== undefined && file.isPatched) {
    // The parts may be of two versions, or of a file that the host compresses without telling.
    options.onBytes?.(-file.bytes.length);
    file = await download(source, options);
    found = await faultOf(entry, file);
  }
  const { bytes } = file;
  if (found !== undefined) {
    options.onBytes?.(-bytes.length);
    throw new UserError(url, found, wanted, REMEDY, "bundle-changed");
  }
  await put(cacheKey(entry), bytes);
  return bytes;
}

async function faultOf(entry: FileEntry, { bytes, isLong }: Download): Promise<string | undefined> {
  return isLong ? `more than ${entry.bytes} bytes (long)` : fault(entry, bytes);
}

/** Describe how `bytes` differ from the manifest's entry; undefined if they are equal. */
async function fault(entry: FileEntry, bytes: Uint8Array<ArrayBuffer>): Promise<string | undefined> {
  const sha256 = await sha256Hex(bytes);
  if (bytes.length === entry.bytes && sha256 === entry.sha256) return undefined;
  return `${bytes.length} bytes, sha256 ${sha256} (${bytes.length < entry.bytes ? "short" : "altered"})`;
}
