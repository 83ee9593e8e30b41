/** How long to wait for hosts and devices, in milliseconds. */

/** Before a request whose connection broke is made again. Bytes that came start the list anew. */
export const RETRY_DELAYS_MS = [200, 1000, 4000];

/** After this long without a byte, a connection counts as broken. */
export const STALL_MS = 60_000;

/** A device that is lost twice within this time is not opened a third time: something else is wrong. */
export const LOSSES_MS = 60_000;

/** After a lost device, before the browser is asked again for an adapter that it did not have. */
export const ADAPTER_DELAYS_MS = [500, 2000];
