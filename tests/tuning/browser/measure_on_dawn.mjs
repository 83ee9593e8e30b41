/**
 * Measure a piece of work with the page's own code, on Dawn without a browser.
 *
 *   node measure_on_dawn.mjs FOLDER_WITH_NODE_MODULES < work.json
 */

import { createRequire } from "node:module";
import { join } from "node:path";
import { json } from "node:stream/consumers";

const { create, globals } = await import(createRequire(join(process.argv[2], "package.json")).resolve("webgpu"));
Object.assign(globalThis, globals);
const { Bench } = await import("../../../mlc_controlnet/tuning/browser/page/measure.mjs");
const gpu = create([]); // kept: Dawn crashes when its instance is collected
const adapter = await gpu.requestAdapter();
const requiredFeatures = ["shader-f16", "timestamp-query"].filter((feature) => adapter?.features.has(feature));
const device = await adapter?.requestDevice({ requiredFeatures });
const work = /** @type {import("../../../mlc_controlnet/tuning/browser/page/measure.mjs").Work} */ (
  await json(process.stdin)
);
console.log(JSON.stringify({ features: requiredFeatures, ...(await new Bench(device).measure(work)) }));
process.exit(0); // Dawn's threads would keep the process alive
