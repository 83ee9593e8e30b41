/**
 * Fetch a bundle from a static host: every byte is checked against the manifest's sha256 before it is used, and kept in
 * the Cache API under that hash. The twin of mlc_controlnet/bundle/reader.py.
 */

import { type BundleAddress, fileUrl, resolveBundleUrl } from "./bundle_address.ts";
import { MANIFEST_NAME } from "./constants.ts";
import { isAbort, UserError } from "./errors.ts";
import { type FileEntry, type Manifest, parseManifest } from "./manifest.ts";
import { checkSecureContext } from "./secure_context.ts";

/** Milliseconds to wait before a request whose connection broke is made again. */
const RETRY_DELAYS_MS = [200, 1000];
const REMEDY =
  "load the page again; if that does not help, copy the bundle to the host again: it was changed after its build";

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
  /**
   * Keep this version of the bundle in the cache, with its manifest, and delete other versions. Does nothing if the cache had
   * no room for every file.
   */
  keep(): Promise<void>;
}

export interface ReadOptions {
  signal?: AbortSignal;
  /** Bytes that arrived since the last call. Negative if a damaged file is fetched again. */
  onBytes?: (bytes: number) => void;
}

/**
 * Fetch and validate the manifest of the bundle at `bundleUrl`, a folder. Nothing else is fetched yet. If the host does not
 * answer, this returns the version that the cache keeps.
 *
 * Throws UserError if there is no bundle or its manifest is not valid.
 */
export async function openBundle(bundleUrl: string | URL, signal?: AbortSignal): Promise<Bundle> {
  checkSecureContext();
  const address = resolveBundleUrl(bundleUrl);
  const url = fileUrl(address, MANIFEST_NAME);
  const cache = await openCache(address);
  const { bytes, isKept } = await readManifest(cache, address, signal);
  const manifest = parseManifest(bytes, url);
  const entries = new Map(manifest.files.map((entry) => [entry.path, entry]));
  const current = new Set(manifest.files.map(cacheKey));
  let isWhole = true;
  const dropOthers = async () => {
    for (const cached of (await cache?.keys()) ?? []) {
      if (!current.has(cached.url)) await cache?.delete(cached);
    }
  };
  const put: Put = async (key, content) => {
    if (await putCached(cache, key, content)) return;
    await dropOthers(); // and the manifest of the version before, which is no longer whole
    if (!(await putCached(cache, key, content))) isWhole = false;
  };
  return {
    url: address.folder,
    manifest,
    sha256: await sha256Hex(bytes),
    async readFile(path, options = {}) {
      const entry = entries.get(path);
      if (entry === undefined) throw new Error(`${path} is not listed in ${url}`);
      return (await readCached(cache, entry, options)) ?? (await readFromHost(put, address, entry, options));
    },
    async keep() {
      if (!isWhole) return;
      if (!isKept) await dropOthers(); // else a newer version may be on its way
      await put(url, bytes);
    },
  };
}

/** Delete everything that was ever cached of the bundle at `bundleUrl`. */
export async function purgeBundle(bundleUrl: string | URL): Promise<void> {
  const address = resolveBundleUrl(bundleUrl);
  if (typeof caches !== "undefined") await caches.delete(cacheName(address));
}

/** The SHA-256 of `bytes` as 64 hex digits. */
export async function sha256Hex(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function readManifest(
  cache: Cache | undefined,
  address: BundleAddress,
  signal?: AbortSignal,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; isKept: boolean }> {
  const url = fileUrl(address, MANIFEST_NAME);
  const wanted = "a bundle's manifest.json";
  const remedy =
    "build a bundle with python -m mlc_controlnet build --target webgpu and pass the address of its folder";
  const download = async () => readBody(await request(url, address.query, wanted, remedy, signal), url, wanted);
  try {
    return { bytes: await withRetries(download, signal), isKept: false };
  } catch (error) {
    const kept = error instanceof BrokenConnection ? await cache?.match(url) : undefined;
    if (kept === undefined) throw error;
    return { bytes: new Uint8Array(await kept.arrayBuffer()), isKept: true };
  }
}

async function readCached(
  cache: Cache | undefined,
  entry: FileEntry,
  { onBytes }: ReadOptions,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const response = await cache?.match(cacheKey(entry));
  if (response === undefined) return undefined;
  const bytes = new Uint8Array(await response.arrayBuffer());
  if ((await fault(entry, bytes)) !== undefined) {
    await cache?.delete(cacheKey(entry)); // damaged on this machine: the host's copy replaces it
    return undefined;
  }
  onBytes?.(bytes.length);
  return bytes;
}

async function readFromHost(
  put: Put,
  address: BundleAddress,
  entry: FileEntry,
  { signal, onBytes }: ReadOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const url = fileUrl(address, entry.path);
  const wanted = `${entry.bytes} bytes, sha256 ${entry.sha256}`;
  const download = async () =>
    readBody(await request(url, address.query, wanted, REMEDY, signal), url, wanted, onBytes);
  const bytes = await withRetries(download, signal);
  const found = await fault(entry, bytes);
  if (found !== undefined) {
    onBytes?.(-bytes.length);
    throw new UserError(url, found, wanted, REMEDY);
  }
  await put(cacheKey(entry), bytes);
  return bytes;
}

/** Returns whether the cache had room; true without a cache. */
async function putCached(cache: Cache | undefined, key: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
  try {
    await cache?.put(key, new Response(bytes));
    return true;
  } catch {
    return false;
  }
}

/** Describe how `bytes` differ from the manifest's entry; undefined if they are equal. */
async function fault(entry: FileEntry, bytes: Uint8Array<ArrayBuffer>): Promise<string | undefined> {
  const sha256 = await sha256Hex(bytes);
  if (bytes.length === entry.bytes && sha256 === entry.sha256) return undefined;
  const kind = bytes.length === entry.bytes ? "altered" : bytes.length < entry.bytes ? "short" : "long";
  return `${bytes.length} bytes, sha256 ${sha256} (${kind})`;
}

/** No answer, or an answer that stopped. Only this kind of failure is worth another attempt. */
class BrokenConnection extends UserError {
  constructor(url: string, got: string, wanted: string) {
    super(url, got, wanted, "check the connection and try again");
  }
}

async function withRetries<T>(attempt: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (const delay of RETRY_DELAYS_MS) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof BrokenConnection)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
    signal?.throwIfAborted();
  }
  return attempt();
}

/** Fetch `url` with `query` at its end. Messages name only `url`. */
async function request(
  url: string,
  query: string,
  wanted: string,
  remedy: string,
  signal?: AbortSignal,
): Promise<Response> {
  let response: Response;
  try {
    // The Cache API keeps what is verified; a second copy in the HTTP cache would only serve stale bytes.
    response = await fetch(url + query, { signal, cache: "no-store" });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new BrokenConnection(url, `no answer (${(error as Error).message})`, wanted);
  }
  if (!response.ok) throw new UserError(url, `HTTP ${response.status} ${response.statusText}`.trim(), wanted, remedy);
  return response;
}

/** Read the whole body. `onBytes` receives bytes as they arrive, and a negative number if the connection breaks. */
async function readBody(
  response: Response,
  url: string,
  wanted: string,
  onBytes: (bytes: number) => void = () => {},
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let received = 0;
  try {
    const reader = (response.body as ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      chunks.push(read.value);
      received += read.value.length;
      onBytes(read.value.length);
    }
  } catch (error) {
    onBytes(-received);
    if (isAbort(error)) throw error;
    throw new BrokenConnection(url, `${received} bytes, then no more (${(error as Error).message})`, wanted);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function openCache(address: BundleAddress): Promise<Cache | undefined> {
  try {
    // Node has no cache. A page over plain http, a sandboxed frame and some private windows have one that throws.
    return typeof caches === "undefined" ? undefined : await caches.open(cacheName(address));
  } catch {
    return undefined;
  }
}

function cacheName({ folder }: BundleAddress): string {
  return `mlc-controlnet ${folder}`;
}

/** The Cache API accepts only http addresses as keys. Nothing fetches this one. */
function cacheKey(entry: FileEntry): string {
  return `https://sha256.invalid/${entry.sha256}`;
}
