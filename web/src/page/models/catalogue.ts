/** The models of this site, as models.json lists them, and those that the visitor has added. */

import { listServiceModels, type ServiceModel, serviceModelUrl } from "../../remote/service";
import { isObject, keep, readKept } from "../state/kept";

/** One bundle that the page can open. */
export interface Model {
  /** The address of the bundle's folder. */
  readonly url: string;
  readonly name: string;
  /** The address of a picture; empty without one. */
  readonly picture: string;
  readonly kinds: readonly string[];
  readonly sizes: readonly (readonly [width: number, height: number])[];
  /** To fetch; 0 if unknown. */
  readonly bytes: number;
  readonly memoryBytes: { readonly resident: number; readonly reduced: number } | undefined;
  /** WebGPU features without which it does not run. */
  readonly needs: readonly string[];
  readonly steps: number | undefined;
  readonly licence: string;
  readonly mirrors: readonly string[];
  /** Whether the visitor has added it. */
  readonly isOwn: boolean;
}

/** The bundle of a site whose list is empty or missing. */
const ONLY_BUNDLE = "./bundle/";
const FORMAT = 1;
const KEPT = "own models";

/** Read models.json beside the page, and the visitor's own models. A site without a list has one bundle. */
export async function readCatalogue(): Promise<readonly Model[]> {
  const listed = await fetch("./models.json", { cache: "no-cache" })
    .then((answer) => (answer.ok ? answer.json() : undefined))
    .catch(() => undefined);
  const models = modelsOf(listed);
  const isServed = isObject(listed) && typeof listed.service === "string";
  const served = isServed ? await remoteModels(String(listed.service)) : [];
  const here = models.length > 0 || served.length > 0 ? models : [nameless(ONLY_BUNDLE)];
  return [...here, ...served, ...ownModels()];
}

/** The models of the service that brought this page. */
async function remoteModels(address: string): Promise<readonly Model[]> {
  const toModel = ({ name, sizes, controlnets }: ServiceModel): Model => ({
    ...nameless(serviceModelUrl(address, name)),
    name,
    kinds: controlnets.map(({ kind }) => kind).filter((kind) => kind !== ""),
    sizes: sizes.map(({ width, height }) => [width, height] as const),
  });
  return (await listServiceModels(address)).map(toModel);
}

/** The models of the list's content; none if it is of another format. */
export function modelsOf(content: unknown): readonly Model[] {
  if (!isObject(content) || content.format !== FORMAT || !Array.isArray(content.models)) return [];
  return content.models.filter(isObject).flatMap((entry) => {
    if (typeof entry.path !== "string" || typeof entry.name !== "string") return [];
    const memory = entry.memory_bytes as Model["memoryBytes"];
    const model: Model = {
      url: `./${entry.path}`,
      name: entry.name,
      picture: text(entry.picture),
      kinds: texts(entry.kinds),
      sizes: (Array.isArray(entry.sizes) ? entry.sizes : []) as Model["sizes"],
      bytes: number(entry.bytes) ?? 0,
      memoryBytes: isObject(memory) ? memory : undefined,
      needs: texts(entry.needs),
      steps: number(entry.steps),
      licence: text(entry.licence),
      mirrors: texts(entry.mirrors),
      isOwn: false,
    };
    return [model];
  });
}

/** Add a model of the visitor's, which is there again at the next visit. */
export function addOwnModel(url: string, name: string): Model {
  const model = { ...nameless(url), name, isOwn: true };
  const others = ownModels().filter((other) => other.url !== url);
  keep(
    KEPT,
    [...others, model].map((own) => ({ url: own.url, name: own.name })),
  );
  return model;
}

export function removeOwnModel(url: string): void {
  const others = ownModels().filter((other) => other.url !== url);
  keep(
    KEPT,
    others.map((own) => ({ url: own.url, name: own.name })),
  );
}

function ownModels(): readonly Model[] {
  const kept = readKept(KEPT, (value): value is { url: string; name: string }[] => Array.isArray(value)) ?? [];
  return kept
    .filter((own) => typeof own?.url === "string" && typeof own.name === "string")
    .map(({ url, name }) => ({ ...nameless(url), name, isOwn: true }));
}

function nameless(url: string): Model {
  const unknown = { picture: "", bytes: 0, memoryBytes: undefined, steps: undefined, licence: "" };
  return { url, name: "", kinds: [], sizes: [], needs: [], mirrors: [], isOwn: false, ...unknown };
}

const text = (value: unknown) => (typeof value === "string" ? value : "");
const number = (value: unknown) => (typeof value === "number" ? value : undefined);
const texts = (value: unknown) => (Array.isArray(value) ? value.filter((item) => typeof item === "string") : []);
