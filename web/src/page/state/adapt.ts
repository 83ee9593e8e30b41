/** What changes on the page with the model: its sizes, steps, units and samplers. What the visitor has filled in stays. */

import { batch } from "@preact/signals";
import type { EngineInfo, Manifest } from "../../worker";
import { isSubject } from "../samples/outlines";
import { samplesFor } from "../samples/samples";
import { t } from "../text";
import type { ControlNetEntry, ControlUnit } from "./control_unit";
import { leaveOutOthers } from "./options";
import type { Studio } from "./studio";

/** Forget the model that was open, and what it recommended. */
export function leaveModel({ engine, manifest, result, request }: Studio): void {
  batch(() => {
    for (const left of [engine, manifest, result, request.steps, request.guidance, request.sampler]) {
      left.value = undefined;
    }
  });
}

/** Adapt the page to a bundle, whose engine is still loading. */
export function adapt(studio: Studio, manifest: Manifest): void {
  const { request, modes } = studio;
  const isOpen = studio.manifest.peek() !== undefined; // and only its engine is loaded anew
  studio.manifest.value = manifest;
  adaptSize(studio, manifest, isOpen);
  request.steps.value ??= manifest.defaults.steps;
  request.guidance.value ??= manifest.defaults.guidance_scale;
  if (!modes.peek().includes(request.mode.peek())) request.mode.value = modes.peek()[0];
  for (const notice of leaveOutOthers(studio)) studio.messages.notice(notice);
  adaptUnits(studio, manifest);
  adaptPrompt(studio);
  const [first] = studio.controls.peek();
  if (first?.kind.peek() === "scribble") beginWithScribble(studio, first);
}

/** Choose one of the engine's samplers. That of a link or of the last visit came before they were known. */
export function adaptSampler({ request: { sampler }, messages }: Studio, { samplers, manifest }: EngineInfo): void {
  const wanted = sampler.peek();
  if (wanted !== undefined && samplers.includes(wanted)) return;
  if (wanted !== undefined) messages.notice(() => t.value.samplerMissing(wanted));
  sampler.value = manifest.samplers.default;
}

/** Another model draws its own size; the same one the size that was chosen. */
function adaptSize(studio: Studio, { model }: Manifest, isOpen: boolean): void {
  const { width, height } = studio.request.size.peek();
  const isOffered = studio.sizes.peek().some((size) => size.width === width && size.height === height);
  if (!isOpen || !isOffered) studio.setSize({ width: model.width, height: model.height });
}

/** Give each unit a ControlNet of the bundle: its own if the bundle has it, else one that no other unit has. */
function adaptUnits(studio: Studio, { controlnets, defaults }: Manifest): void {
  const units = unitsFor(controlnets, studio.controls.peek());
  studio.controls.value = units;
  const ofUnit = (unit: ControlUnit) => controlnets.find(({ name }) => name === unit.controlnet.peek());
  const taken = new Set(units.map(ofUnit));
  const others = controlnets.filter((entry) => !taken.has(entry));
  for (const unit of units) {
    unit.use(ofUnit(unit) ?? (others.shift() as ControlNetEntry));
    unit.recommend(defaults.conditioning_scale);
    if (studio.isBundledModel.peek()) unit.drawOneRing();
    else unit.drawFreely();
  }
}

/** The bundled model's first prompt and the names of samples are for one kind of model each. */
function adaptPrompt({ isBundledModel, request: { prompt } }: Studio): void {
  const { firstPrompt } = t.peek();
  if (isBundledModel.peek() && isSubject(prompt.peek())) prompt.value = firstPrompt;
  if (!isBundledModel.peek() && prompt.peek() === firstPrompt) prompt.value = "";
}

/** The units that there are ControlNets for: rather those that take part, and of them those whose ControlNet is there. */
function unitsFor(controlnets: readonly ControlNetEntry[], units: readonly ControlUnit[]): readonly ControlUnit[] {
  const names = new Set(controlnets.map(({ name }) => name));
  const rank = ({ enabled, controlnet }: ControlUnit) =>
    2 * Number(enabled.peek()) + Number(names.has(controlnet.peek()));
  const kept = new Set([...units].sort((one, other) => rank(other) - rank(one)).slice(0, controlnets.length));
  return units.filter((unit) => kept.has(unit));
}

/** Put the first sample on the board, and its name into the prompt: one press draws, and the first own line replaces it. */
function beginWithScribble(studio: Studio, { drawing, kind }: ControlUnit): void {
  const [{ shape, subject }] = samplesFor(kind.peek(), false);
  const example = shape(drawing.size, "none");
  if (example.kind !== "strokes" || !drawing.beginWith({ ...example, isExample: true })) return;
  studio.suggestPrompt(subject);
}
