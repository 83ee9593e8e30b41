/**
 * Wait for the GPU where the browser looks only now and then whether it is done.
 *
 * Firefox finds out on a timer of 100 ms that a buffer is mapped or work is done (https://bugzil.la/1870699), and whenever
 * something is submitted. A step of the denoising loop waits once, so it would lose up to 100 ms. Other browsers are told
 * by the GPU, and submissions would only cost them time.
 */

/** Milliseconds between two submissions. Timers of a browser are no faster than 4 ms after the first few. */
const INTERVAL_MS = 1;

/** Return whether this browser must be asked again and again. Firefox for iOS is another browser inside, and not meant. */
export function looksRarely(userAgent = globalThis.navigator?.userAgent ?? ""): boolean {
  return userAgent.includes("Firefox/");
}

/** Wait for `work` and submit empty command buffers meanwhile, if the browser needs them. */
export async function awaitWork<T>(work: Promise<T>, device: GPUDevice, nudges = looksRarely()): Promise<T> {
  if (!nudges) return work;
  const timer = setInterval(() => device.queue.submit([device.createCommandEncoder().finish()]), INTERVAL_MS);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

/** Wait for `work` unless `signal` aborts: then this throws its reason, and the work goes on. */
export async function untilAborted<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return work;
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Wait until the thread has read the messages that arrived meanwhile. A timer would wait 4 ms. */
export function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
