import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Models } from "../../../src/page/state/models";
import { Studio } from "../../../src/page/state/studio";
import { rememberSettings } from "../../../src/page/state/visits";
import { makeManifest } from "../../engine/sample_bundle";

let studio: Studio;
/** What the page does between two inputs. */
const settle = () => new Promise((resolve) => setTimeout(resolve));

beforeEach(() => {
  const kept = new Map<string, string>();
  vi.stubGlobal("location", new URL("https://site.example/demo/"));
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
  });
  studio = visit();
});

afterEach(() => vi.unstubAllGlobals());

function visit(): Studio {
  const opened = new Studio();
  rememberSettings(opened, new Models());
  return opened;
}

test("settings of the last visit are there again, and so is a seed that was left open", async () => {
  studio.manifest.value = makeManifest();
  await settle();
  studio.request.steps.value = 12;
  studio.request.seed.value = undefined;
  await settle();
  const again = visit();
  again.manifest.value = makeManifest();
  await settle();
  expect([again.request.steps.value, again.request.seed.value]).toEqual([12, undefined]);
});

test("another bundle with a model of the same name, such as a service's, has its settings", async () => {
  studio.manifest.value = makeManifest();
  await settle();
  studio.request.steps.value = 12;
  await settle();
  studio.manifest.value = undefined;
  studio.request.steps.value = undefined;
  studio.manifest.value = makeManifest();
  studio.request.steps.value ??= 2;
  await settle();
  expect(studio.request.steps.value).toBe(12);
});
