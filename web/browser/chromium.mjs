/** Start Chromium with WebGPU, on the CPU or on a GPU. */

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];

/** Flags for every start: no sandbox, no first-run dialog, and no network traffic of Chromium's own. */
const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/**
 * Flags for WebGPU on the CPU. Without `--use-webgpu-adapter` Chromium takes the machine's own GPU.
 *
 * WGSL requires that workgroup memory starts as zeros. A GPU's driver clears it in a loop, but SwiftShader compiles one
 * store per word, which makes the compilation of a convolution many times slower. Our kernels write the memory before
 * they read it, so they do not need the zeros.
 */
const SOFTWARE_WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-dawn-features=disable_workgroup_init",
];

/**
 * Start the Chromium that the environment variable CHROMIUM names, or else the first that is installed.
 *
 * @param {{ webgpu?: "software" | "gpu" | "none", flags?: string[] }} [options] the kind of adapter, and more flags
 */
export async function launchChromium({ webgpu = "software", flags = [] } = {}) {
  const executablePath = process.env.CHROMIUM ?? PLACES.find((place) => existsSync(place));
  if (executablePath === undefined) {
    throw new Error(`no Chromium in ${PLACES.join(", ")}: apt-get install chromium, or set CHROMIUM to its path`);
  }
  const args = {
    software: [...FLAGS, ...SOFTWARE_WEBGPU],
    gpu: [...FLAGS, "--enable-unsafe-webgpu"],
    none: [...FLAGS, "--disable-features=WebGPU,WebGPUService"],
  };
  return chromium.launch({ executablePath, headless: true, args: [...args[webgpu], ...flags] });
}
