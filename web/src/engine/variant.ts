/**
 * Other picture sizes and longer prompts: functions that take the place of the components' own.
 *
 * A bundle holds each weight once. A variant is compiled for other shapes and is called with the components' own params, so
 * it costs kernels and no weights. Twin: mlc_controlnet/bundle/variant.py.
 */

import type { ComponentSpec, Manifest, Variant } from "./manifest.ts";
import type { Size } from "./size.ts";

/** A function of the library, its inputs and outputs. */
export type FunctionEntry = Pick<ComponentSpec, "function" | "inputs" | "outputs">;

/** Of an input: the shape of a tensor on the device, or the length of an array on the host. */
export type InputShape = readonly number[] | number;

/** Return the components with the functions of a variant. */
export function applyVariant({ functions }: Variant, components: Manifest["components"]): Manifest["components"] {
  return Object.fromEntries(
    Object.entries(components).map(([name, entry]) => [name, { ...entry, ...functions[entry.function] }]),
  );
}

/** Return the manifest with another of its sizes as the default. */
export function forSize(parsed: Manifest, { height, width }: Size): Manifest {
  const { model, components, variants } = parsed;
  if (height === model.height && width === model.width) return parsed;
  const variant = variants.find((one) => one.height === height && one.width === width && one.chunks === 1) as Variant;
  return { ...parsed, model: { ...model, height, width }, components: applyVariant(variant, components) };
}

/**
 * Return the function of a component that is compiled for inputs of these shapes and, if the arrays of two sizes have one
 * length, for pictures of `size`; the component's own function if there is none.
 */
export function functionFor(
  { model, components, variants }: Manifest,
  component: string,
  shapes: readonly InputShape[],
  size: Size = model,
): FunctionEntry {
  const own = components[component];
  const compiled = [{ ...own, height: model.height, width: model.width }];
  for (const { functions, height, width } of variants) {
    const other = functions[own.function];
    if (other !== undefined) compiled.push({ ...own, ...other, height, width });
  }
  const fitting = compiled.filter(({ inputs }) => inputs.every((input, i) => fits(input.shape, shapes[i])));
  return fitting.find(({ height, width }) => height === size.height && width === size.width) ?? fitting[0] ?? own;
}

/**
 * List the sizes of pictures or tiles that the VAE's encoder or decoder is compiled for, in pixels: those of its first input,
 * [1, C, height, width].
 */
export function compiledSizes({ model, components, variants }: Manifest, component: string): Size[] {
  const own = components[component];
  const others = variants.flatMap(({ functions }) => functions[own.function] ?? []);
  const factor = component === "vae_decoder" ? model.vae_scale_factor : 1;
  return [own, ...others].map(({ inputs: [{ shape }] }) => ({ height: factor * shape[2], width: factor * shape[3] }));
}

function fits(shape: readonly number[], given: InputShape | undefined): boolean {
  if (typeof given === "number") return shape.reduce((product, side) => product * side, 1) === given;
  return given !== undefined && shape.join() === given.join();
}

/** The shape of one chunk's context: [1, T, D]. */
export function contextShape({ components }: Manifest): readonly number[] {
  const [context] = components.unet.inputs.filter(({ name }) => name === "context");
  return context.shape;
}
