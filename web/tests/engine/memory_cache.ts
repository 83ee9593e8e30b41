/** The browser's stores, as far as the engine uses them. */

/** A Cache of the Cache API. */
export class MemoryCache {
  readonly entries = new Map<string, Uint8Array<ArrayBuffer>>();
  private readonly headers = new Map<string, Headers>();
  /** Bytes. */
  room = Number.POSITIVE_INFINITY;
  async match(key: string) {
    const bytes = this.entries.get(key);
    return bytes && new Response(bytes, { headers: this.headers.get(key) });
  }
  async put(key: string, response: Response) {
    const bytes = new Uint8Array(await response.arrayBuffer());
    const taken = [...this.entries.values()].reduce((sum, { length }) => sum + length, bytes.length);
    if (taken > this.room) throw new DOMException("full", "QuotaExceededError");
    this.entries.set(key, bytes);
    this.headers.set(key, response.headers);
  }
  async delete(key: string | { url: string }) {
    return this.entries.delete(typeof key === "string" ? key : key.url);
  }
  async keys() {
    return [...this.entries.keys()].map((url) => ({ url }));
  }
}

/** navigator.locks of an origin. */
export class MemoryLocks {
  private readonly last = new Map<string, Promise<unknown>>();
  async request(name: string, { signal }: { signal?: AbortSignal }, action: () => Promise<unknown>) {
    signal?.throwIfAborted();
    const before = this.last.get(name) ?? Promise.resolve();
    const aborted = new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    aborted.catch(() => {});
    const call = Promise.race([before.catch(() => {}), aborted]).then(() => action());
    this.last.set(name, call);
    return call;
  }
}
