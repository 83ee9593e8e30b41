/** The real Chromium, with WebGPU on the processor where there is no GPU. */

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];

/** Quiet, and with SwiftShader as WebGPU adapter; without `--use-webgpu-adapter` a machine's own GPU is taken. */
const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/**
 * WGSL wants workgroup memory to begin as zeros. A GPU's driver clears it with a loop; SwiftShader compiles one store a word,
 * 0.75 ms each: 2.4 s for a convolution with 12 KiB, 0.08 s without. Our kernels write it before they read it.
 */
const SOFTWARE_WEBGPU = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-dawn-features=disable_workgroup_init",
];

/**
 * Start Chromium: the one that the environment variable CHROMIUM names, or the first that is installed.
 *
 * @param {{ webgpu?: "software" | "gpu" | "none", flags?: string[] }} [options] where WebGPU comes from, and more flags
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
