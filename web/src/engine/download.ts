/**
 * Download a file from a static host that may break off, answer late, or know no ranges.
 *
 * A connection that breaks is taken up again where it broke, by a range request, as long as bytes keep coming. What a host
 * sends is not trusted: the caller compares the file's hash.
 */

import { isAbort, UserError } from "./errors.ts";
import { RETRY_DELAYS_MS, STALL_MS } from "./patience.ts";

/** How many range requests may stay without an answer until the whole file is asked for: a host may refuse the header by CORS. */
const UNANSWERED_RANGES = 2;

/** What to download, and what messages say of it. */
export interface Source {
  /** Without the query. Messages name it. */
  readonly url: string;
  /** "?token=…" or "": goes with every request, and into no message. */
  readonly query: string;
  readonly wanted: string;
  /** What to do if the host has no such file. */
  readonly remedy: string;
  /** The size of the file, if it is known. */
  readonly bytes?: number;
}

export interface ReadOptions {
  signal?: AbortSignal;
  /** Bytes that arrived since the last call. Negative if some are fetched again. */
  onBytes?: (bytes: number) => void;
}

/** No answer, or an answer that stopped, or a host that is out of order. Only this kind of failure is worth another attempt. */
export class BrokenConnection extends UserError {
  constructor(url: string, got: string, wanted: string) {
    super(url, got, wanted, "check the connection and try again", "no-connection");
  }
}

/** A file as it came. */
export interface Download {
  /** The whole of its buffer. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Whether several answers were put together. */
  readonly isPatched: boolean;
  /** Whether the host has more than these bytes, which are as many as were expected. */
  readonly isLong: boolean;
}

/** A file as far as it has come. */
interface Received {
  bytes: Uint8Array<ArrayBuffer>;
  length: number;
  isLong: boolean;
  /** Whether what is there was put together of several answers. */
  isPatched: boolean;
  /** Whether the rest may be asked for alone: the host does not send the file compressed, and has not refused. */
  canResume: boolean;
  unanswered: number;
}

/**
 * Download a whole file. One that is longer than expected is not read on.
 *
 * Throws BrokenConnection if the host does not answer for good, and UserError if it has no such file.
 */
export async function download(source: Source, options: ReadOptions): Promise<Download> {
  const received: Received = {
    bytes: new Uint8Array(source.bytes ?? 2 ** 16),
    length: 0,
    isLong: false,
    isPatched: false,
    canResume: source.bytes !== undefined,
    unanswered: 0,
  };
  let most = 0;
  for (let failures = 0; ; failures++) {
    try {
      await receive(source, received, options);
      const { bytes, length, isPatched, isLong } = received;
      return { bytes: length === bytes.length ? bytes : bytes.slice(0, length), isPatched, isLong };
    } catch (error) {
      if (received.length > most) failures = 0;
      most = Math.max(most, received.length);
      const isLast = failures === RETRY_DELAYS_MS.length;
      if (!(error instanceof BrokenConnection) || isLast) {
        drop(received, options);
        throw error;
      }
    }
    await wait(RETRY_DELAYS_MS[failures], options.signal);
  }
}

/** Make one request and read its answer to the end. */
async function receive(source: Source, received: Received, options: ReadOptions): Promise<void> {
  const { url, wanted } = source;
  const stall = new Stall(options.signal);
  try {
    const response = await request(source, received, stall);
    const continues = response.status === 206;
    if (continues && startOf(response, received.length) !== received.length) {
      received.canResume = false;
      throw new BrokenConnection(url, "another part of the file", wanted);
    }
    if (!continues) drop(received, options);
    received.isPatched ||= continues;
    if (response.headers.get("content-encoding") !== null) received.canResume = false; // ranges would be of compressed bytes
    const reader = (response.body as ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      stall.bytesCame();
      const before = received.length;
      append(received, read.value, source);
      options.onBytes?.(received.length - before);
      if (!received.isLong) continue;
      await reader.cancel().catch(() => {});
      return;
    }
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof UserError) throw error;
    const { message } = error as Error;
    const reason = isAbort(error) ? `nothing for ${STALL_MS / 1000} seconds` : message;
    const got = received.length ? `${received.length} bytes, then no more (${reason})` : `no answer (${reason})`;
    throw new BrokenConnection(url, got, wanted);
  } finally {
    stall.end();
  }
}

/** Ask for the file, or for what is missing of it. */
async function request(source: Source, received: Received, stall: Stall): Promise<Response> {
  const { url, query, wanted, remedy } = source;
  const resumes = received.canResume && received.length > 0;
  const headers: HeadersInit = resumes ? { range: `bytes=${received.length}-` } : {};
  let response: Response;
  try {
    // The Cache API keeps what is verified; a second copy in the HTTP cache would only serve stale bytes.
    response = await fetch(url + query, { signal: stall.signal, cache: "no-store", headers });
  } catch (error) {
    if (resumes && ++received.unanswered === UNANSWERED_RANGES) received.canResume = false;
    throw error;
  }
  if (response.ok) return response;
  const got = `HTTP ${response.status} ${response.statusText}`.trim();
  if (resumes && response.status === 416) received.canResume = false;
  if (response.status >= 500 || [408, 416, 429].includes(response.status)) throw new BrokenConnection(url, got, wanted);
  throw new UserError(url, got, wanted, remedy, "bad-bundle");
}

/** The place in the file at which an answer starts. A host of another origin may not show it; `expected` then holds. */
function startOf({ headers }: Response, expected: number): number {
  const range = /^bytes (\d+)-/.exec(headers.get("content-range") ?? "");
  return range === null ? expected : Number(range[1]);
}

function append(received: Received, chunk: Uint8Array, { bytes: size }: Source): void {
  const room = received.bytes.length - received.length;
  if (chunk.length > room) {
    if (size === undefined) {
      const larger = new Uint8Array(2 * (received.length + chunk.length));
      larger.set(received.bytes);
      received.bytes = larger;
    } else {
      received.isLong = true;
      chunk = chunk.subarray(0, room);
    }
  }
  received.bytes.set(chunk, received.length);
  received.length += chunk.length;
}

/** Forget what has come: the next answer is the whole file. */
function drop(received: Received, { onBytes }: ReadOptions): void {
  if (received.length) onBytes?.(-received.length);
  received.length = 0;
  received.isLong = false;
  received.isPatched = false;
}

async function wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Ends a request whose bytes stay away. */
class Stall {
  private readonly controller = new AbortController();
  readonly signal: AbortSignal;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(signal?: AbortSignal) {
    this.signal = signal === undefined ? this.controller.signal : AbortSignal.any([signal, this.controller.signal]);
    this.bytesCame();
  }

  bytesCame(): void {
    this.end();
    this.timer = setTimeout(() => this.controller.abort(), STALL_MS);
  }

  end(): void {
    clearTimeout(this.timer);
  }
}
