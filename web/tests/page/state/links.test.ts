import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Model } from "../../../src/page/models/catalogue";
import { type Link, readLink } from "../../../src/page/state/link";
import { leaveLink, linkOf, listenForLinks, showInAddress } from "../../../src/page/state/links";
import { Models } from "../../../src/page/state/models";
import { optionsOf, toTexts } from "../../../src/page/state/options";
import { Studio } from "../../../src/page/state/studio";
import { rememberSettings } from "../../../src/page/state/visits";
import { language } from "../../../src/page/text";
import type { Manifest } from "../../../src/worker";
import { DEPTH, LINES, makeManifest } from "../../engine/sample_bundle";

const PAGE = "https://site.example/demo/?memory=auto";
const settle = () => new Promise((resolve) => setTimeout(resolve));
const entryOf = (name: string) => ({ path: `bundles/${name}/`, name });
const manifestOf = (name: string): Manifest => {
  const manifest = makeManifest(undefined, { controlnets: [LINES, DEPTH] } as never);
  return { ...manifest, model: { ...manifest.model, name } };
};

let kept: Map<string, string>;
/** The models of the site's list. */
let listed: readonly string[];
let followLink: () => void;

beforeEach(() => {
  kept = new Map();
  listed = ["circles", "doodle"];
  vi.stubGlobal("location", new URL(PAGE));
  vi.stubGlobal("history", {
    replaceState: (_: unknown, __: string, to: string) => goTo(new URL(to, location.href).href),
  });
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
  });
  vi.stubGlobal("fetch", async () => Response.json({ format: 1, models: listed.map(entryOf) }));
  vi.stubGlobal("addEventListener", (_: string, listener: () => void) => {
    followLink = listener;
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  language.value = "en";
});

function goTo(address: string): void {
  vi.stubGlobal("location", new URL(address));
}

/** Open the page at its present address, as main.tsx does; the model that it opens has a manifest. */
async function visit(loads = true): Promise<{ studio: Studio; models: Models }> {
  const studio = new Studio();
  studio.link = readLink(location.hash);
  const models = new Models(studio.link?.model);
  listenForLinks(studio, models);
  rememberSettings(studio, models);
  const load = ({ name }: Model) => {
    studio.manifest.value = undefined;
    if (!loads) return;
    studio.manifest.value = manifestOf(name);
    studio.setSize({ width: 24, height: 16 });
    studio.controls.value[0].use(manifestOf(name).controlnets[0]);
  };
  models.onChosen = load;
  load(await models.open());
  await settle();
  return { studio, models };
}

const notices = ({ messages }: Studio) => messages.list.value.map(({ text }) => text.join(" "));

/** The link of a visitor who has opened a model and written a prompt. */
async function linkFrom(name: string, prompt: string): Promise<string> {
  const { studio, models } = await visit();
  models.choose(models.named(name) as Model);
  await settle();
  studio.request.prompt.value = prompt;
  const link = linkOf(studio, models);
  await settle();
  kept.clear(); // another browser follows it
  return link;
}

test("a link brings the same settings, after # only", async () => {
  const { studio, models } = await visit();
  studio.request.prompt.value = "żółty krąg & more, 100 %";
  studio.request.seed.value = 0;
  studio.request.steps.value = 12;
  studio.controls.value[0].weight.value = 0.5;
  const link = new URL(linkOf(studio, models));
  expect(`${link.origin}${link.pathname}${link.search}`).toBe(PAGE);
  const before = toTexts(optionsOf(studio));
  const { settings } = readLink(link.hash) as Link;
  expect([settings.notices, toTexts(settings.options)]).toEqual([[], before]);
  kept.clear();
  goTo(link.href);
  const other = await visit();
  expect(toTexts(optionsOf(other.studio))).toEqual(before);
  expect(notices(other.studio)).toEqual([]);
});

test("a link opens its model, also where another one was open last, and a reload stays with it", async () => {
  const link = await linkFrom("doodle", "orange cat");
  kept.set("mlc-controlnet /demo/ model", JSON.stringify("./bundles/circles/"));
  goTo(link);
  const { studio, models } = await visit();
  expect([models.current.value?.name, studio.request.prompt.value]).toEqual(["doodle", "orange cat"]);
  expect((await visit()).models.current.value?.name).toBe("doodle");
});

test.each([
  ["en", "The link is of the model doodle, which this site has not: circles draws another picture."],
  ["de", "Der Link ist vom Modell doodle, das es hier nicht gibt: circles malt ein anderes Bild."],
])("a link of a model that this site has not says so (%s), and brings its settings", async (code, text) => {
  const link = await linkFrom("doodle", "orange cat");
  listed = ["circles"];
  language.value = code;
  goTo(link);
  const { studio, models } = await visit();
  expect([models.current.value?.name, studio.request.prompt.value]).toEqual(["circles", "orange cat"]);
  expect(notices(studio)).toEqual([text]);
});

test("once a link is followed, the address is clean, and a reload has what was changed since", async () => {
  goTo(await linkFrom("circles", "gold"));
  const { studio } = await visit();
  expect(location.href).toBe(PAGE);
  studio.request.prompt.value = "red";
  await settle();
  expect((await visit()).studio.request.prompt.value).toBe("red");
});

test("a link whose model has not loaded stays in the address", async () => {
  const link = await linkFrom("doodle", "orange cat");
  goTo(link);
  await visit(false);
  expect(location.href).toBe(link);
});

test("a link that is shown in the address leaves it with the next change", async () => {
  const { studio, models } = await visit();
  const link = linkOf(studio, models);
  showInAddress(link);
  expect(location.href).toBe(link);
  studio.request.steps.value = 31;
  expect(location.href).toBe(PAGE);
});

test("a part of the address that is no link stays", () => {
  goTo(`${PAGE}#picture-title`);
  expect(readLink(location.hash)).toBeUndefined();
  leaveLink();
  expect(location.hash).toBe("#picture-title");
  expect(readLink("")).toBeUndefined();
});

test("a seed that was left open is open for those who follow the link", async () => {
  const { studio, models } = await visit();
  studio.request.seed.value = undefined;
  goTo(linkOf(studio, models));
  kept.clear();
  expect((await visit()).studio.request.seed.value).toBeUndefined();
});

test("a link that is pasted into the open page is followed there, but not while a picture is drawn", async () => {
  const link = await linkFrom("doodle", "orange cat");
  goTo(PAGE);
  const { studio, models } = await visit();
  studio.running.value = new AbortController();
  goTo(link);
  followLink();
  expect([models.current.value?.name, notices(studio)]).toEqual([
    "circles",
    [expect.stringContaining("open the link")],
  ]);
  studio.running.value = undefined;
  goTo(link);
  followLink();
  await settle();
  expect([models.current.value?.name, studio.request.prompt.value]).toEqual(["doodle", "orange cat"]);
  expect([location.href, notices(studio)]).toEqual([PAGE, []]);
});

test("of several models of a link's name, the one that was open last is opened", async () => {
  listed = ["circles", "doodle", "doodle"];
  vi.stubGlobal("fetch", async () =>
    Response.json({ format: 1, models: listed.map((name, i) => ({ path: `${i}/`, name })) }),
  );
  kept.set("mlc-controlnet /demo/ model", JSON.stringify("./2/"));
  goTo(`${PAGE}#prompt=cat&model=doodle`);
  expect((await visit()).models.current.value?.url).toBe("./2/");
});
