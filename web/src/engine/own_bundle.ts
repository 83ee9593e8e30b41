/**
 * Bundles on this machine: what the cache has of one, and bundles that come from a folder of the visitor instead of a host.
 *
 * A bundle of a folder is put into the cache under an address that no host answers for; `openBundle` then reads it there.
 */

import { fileUrl, OWN_FOLDER, resolveBundleUrl } from "./bundle_address.ts";
import { BundleCache, cacheKey, isOfFile } from "./bundle_cache.ts";
import { MANIFEST_NAME } from "./constants.ts";
import { UserError } from "./errors.ts";
import { sha256Hex } from "./load.ts";
import { type FileEntry, type Manifest, parseManifest } from "./manifest.ts";

const REMEDY = "drop the folder that python -m mlc_controlnet build --target webgpu has written";

/** What this machine has of a bundle. */
export interface KeptBundle {
  readonly manifest: Manifest;
  /** Of the files that are here. */
  readonly bytes: number;
  /** Of the others that may still be fetched. A browser runs one library: the one that is here, else at most the largest. */
  readonly missingBytes: number;
}

/** A file of a folder; `path` is relative to the folder, with /. */
export interface OwnFile {
  readonly path: string;
  readonly file: Blob;
}

/** What the cache has of the bundle at `bundleUrl`; undefined if no version of it was ever there whole. Fetches nothing. */
export async function keptBundle(bundleUrl: string | URL): Promise<KeptBundle | undefined> {
  const address = resolveBundleUrl(bundleUrl);
  if (!(await BundleCache.has(address))) return undefined;
  const cache = await BundleCache.open(address);
  const url = fileUrl(address, MANIFEST_NAME);
  const bytes = await cache.get(url);
  if (bytes === undefined) return undefined;
  try {
    const manifest = parseManifest(bytes, url);
    const keys = new Set(await cache.keys());
    const [here, missing] = [true, false].map((isKept) =>
      manifest.files.filter((entry) => keys.has(cacheKey(entry)) === isKept),
    );
    return { manifest, bytes: total(here), missingBytes: total(neededOf(missing, manifest)) };
  } catch {
    return undefined; // of another version of the engine
  }
}

/** The files of `missing` that may still be fetched: no licences, of libraries the largest, and none where one is here. */
function neededOf(missing: readonly FileEntry[], manifest: Manifest): readonly FileEntry[] {
  const { params, tokenizer, more_tokenizers, samplers } = manifest;
  const shared = new Set([...params.shards, tokenizer.file, ...more_tokenizers.map(({ file }) => file), samplers.file]);
  const libraries = new Set(manifest.libraries.map(({ file }) => file));
  const lacking = missing.filter(({ path }) => libraries.has(path)).sort((a, b) => b.bytes - a.bytes);
  const needed = lacking.length < libraries.size ? [] : lacking.slice(0, 1);
  return [...needed, ...missing.filter(({ path }) => shared.has(path))];
}

const total = (files: readonly FileEntry[]) => files.reduce((sum, { bytes }) => sum + bytes, 0);

/** The bytes of a bundle's files on this machine, also of one whose download was given up. Fetches nothing. */
export async function keptBytes(bundleUrl: string | URL): Promise<number> {
  const address = resolveBundleUrl(bundleUrl);
  if (!(await BundleCache.has(address))) return 0;
  const cache = await BundleCache.open(address);
  const sizes = await Promise.all((await cache.keys()).filter(isOfFile).map((key) => cache.size(key)));
  const sum = sizes.reduce((total, size) => total + size, 0);
  return Math.max(sum, (await keptBundle(bundleUrl))?.bytes ?? 0); // files of an earlier version of the engine have no size
}

/**
 * Keep the bundle in a folder of the visitor. Returns its address for `createEngine`, which is the same each time, and works
 * until the browser's data are deleted. `onBytes` receives the bytes as they are verified.
 *
 * Throws UserError if the files are no whole bundle, or the browser has no room for it. Nothing of it stays then, unless the
 * bundle was here before.
 */
export async function keepOwnBundle(files: readonly OwnFile[], onBytes?: (bytes: number) => void): Promise<string> {
  const found = files.find(({ path }) => path.split("/").at(-1) === MANIFEST_NAME);
  const wanted = "the folder of a bundle, with manifest.json";
  if (found === undefined) throw new UserError("folder", `no ${MANIFEST_NAME}`, wanted, REMEDY, "bad-bundle");
  const folder = found.path.slice(0, -MANIFEST_NAME.length);
  const manifestBytes = new Uint8Array(await found.file.arrayBuffer());
  const manifest = parseManifest(manifestBytes, found.path);
  const address = resolveBundleUrl(`./${OWN_FOLDER}/${(await sha256Hex(manifestBytes)).slice(0, 16)}/`);
  const cache = await BundleCache.open(address);
  if (!cache.exists) throw noRoom("no storage in this browser");
  const manifestUrl = fileUrl(address, MANIFEST_NAME);
  const isHere = (await cache.get(manifestUrl)) !== undefined;
  try {
    await keepFiles(manifest, files, folder, cache, onBytes);
    if (!(await cache.put(manifestUrl, manifestBytes))) throw noRoom("no room for the bundle in the browser's storage");
  } catch (error) {
    if (!isHere) await BundleCache.purge(address).catch(() => {});
    throw error;
  }
  return address.folder;
}

/** Verify the files that the manifest lists, and put them into the cache. `folder` is where the manifest was. */
async function keepFiles(
  manifest: Manifest,
  files: readonly OwnFile[],
  folder: string,
  cache: BundleCache,
  onBytes?: (bytes: number) => void,
): Promise<void> {
  const byPath = new Map(files.map(({ path, file }) => [path, file]));
  for (const entry of manifest.files) {
    const file = byPath.get(folder + entry.path);
    const problem = (got: string) => new UserError(entry.path, got, `${entry.bytes} bytes`, REMEDY, "bad-bundle");
    if (file === undefined) throw problem("no such file in the folder");
    if (file.size !== entry.bytes) throw problem(`${file.size} bytes`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    if ((await sha256Hex(bytes)) !== entry.sha256) throw problem("other bytes than its manifest says");
    if (!(await cache.put(cacheKey(entry), bytes))) throw noRoom("no room for the bundle in the browser's storage");
    onBytes?.(bytes.length);
  }
}

function noRoom(got: string): UserError {
  const remedy = "free space on the disk, leave the private window, or put the bundle on a host";
  return new UserError("storage", got, "room for its files", remedy);
}
