/** How long a download waits for a host, in milliseconds. */

/** Before a request whose connection broke is made again. Bytes that came start the list anew. */
export const RETRY_DELAYS_MS = [200, 1000, 4000];

/** After this long without a byte, a connection counts as broken. */
export const STALL_MS = 60_000;
