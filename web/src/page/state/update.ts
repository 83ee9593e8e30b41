/** The service worker: it keeps the page for visits without a network, and brings a new version while this one runs. */

import { type Signal, signal } from "@preact/signals";

/** Whether a newer version of the page is there. A reload opens it; this one goes on until then. */
export const isOutdated: Signal<boolean> = signal(false);

const AN_HOUR_MS = 3_600_000;

/** Register the service worker, if the browser offers one here. Without it the page works, but only with a network. */
export async function keepForOfflineUse(): Promise<void> {
  try {
    const registration = await navigator.serviceWorker?.register("./offline.js");
    if (registration === undefined) return;
    registration.addEventListener("updatefound", () => {
      const worker = registration.installing;
      worker?.addEventListener("statechange", async () => {
        if (worker.state === "activated" && !(await isOfNewest(registration.scope))) isOutdated.value = true;
      });
    });
    askAgainAfterAnHour(registration);
  } catch (error) {
    console.warn(error); // in a sandboxed frame even the request throws
  }
}

/** Whether the newest version that is kept has this very script, whose name changes with the page. */
async function isOfNewest(scope: string): Promise<boolean> {
  const names = (await caches.keys()).filter((name) => name.startsWith(`mlc-controlnet page ${scope} `));
  const newest = names.at(-1);
  return newest === undefined || (await (await caches.open(newest)).match(import.meta.url)) !== undefined;
}

/** A tab may stay open for days: when the visitor comes back to it, ask the host for a new version. */
function askAgainAfterAnHour(registration: ServiceWorkerRegistration): void {
  let asked = performance.now();
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible" || performance.now() - asked < AN_HOUR_MS) return;
    asked = performance.now();
    registration.update().catch(() => {}); // no network
  });
}
