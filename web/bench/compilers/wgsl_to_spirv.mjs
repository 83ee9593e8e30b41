// WGSL -> the SPIR-V, as text, that Chromium's compiler Tint hands to a Vulkan driver. Any Vulkan adapter serves.
// usage: node wgsl_to_spirv.mjs <folder of .wgsl files>: writes a .spvasm beside each; prints {"file.wgsl": "error"}
// for the files that Tint rejects
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

const MARK = "#### "; // begins the line before a file's dump
// Names stay, so that listings can be read; Chromium does not initialise workgroup memory that is written first.
const TOGGLES = "allow_unsafe_apis,disable_workgroup_init,dump_shaders,disable_symbol_renaming";
const FEATURES = /** @type {GPUFeatureName[]} */ (["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"]);
const LISTING = "/* Dumped SPIRV disassembly */\n";
const END = "OpFunctionEnd\n";

/** @param {string} folder @param {string[]} files */
async function compileAll(folder, files) {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create([`enable-dawn-features=${TOGGLES}`]); // kept: Dawn crashes when its instance is collected
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("no Vulkan adapter");
  const { maxComputeWorkgroupStorageSize } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)),
    requiredLimits: { maxComputeWorkgroupStorageSize },
  });
  device.addEventListener("uncapturederror", () => {}); // each pipeline's error scope has it
  /** @type {Record<string, string>} */
  const rejected = {};
  for (const file of files) {
    writeSync(1, `${MARK}${file}\n`); // now, between the dumps
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code: readFileSync(join(folder, file), "utf8") });
    device.createComputePipeline({ layout: "auto", compute: { module } });
    const error = await device.popErrorScope();
    if (error) rejected[file] = error.message.split("\n").slice(0, 2).join(" ");
  }
  writeSync(1, `${MARK}${JSON.stringify(rejected)}`);
  process.exit(0);
}

const [folder, inner] = process.argv.slice(2);
const files = readdirSync(folder)
  .filter((file) => file.endsWith(".wgsl"))
  .sort();
if (inner) await compileAll(folder, files);

// Dawn writes its dumps to this process's own output, past JavaScript: so it runs in a process of its own.
const { stdout, stderr } = spawnSync(process.execPath, ["--no-warnings", process.argv[1], folder, "inner"], {
  encoding: "utf8",
  maxBuffer: 2 ** 30,
});
const result = stdout.split(MARK).find((part) => part.startsWith("{"));
if (!result) throw new Error(`Dawn ended early: ${stderr.slice(-500)}`);
for (const part of stdout.split(MARK).slice(1)) {
  const file = part.slice(0, part.indexOf("\n"));
  const listing = part.split(LISTING)[1];
  if (listing)
    writeFileSync(
      join(folder, file.replace(/\.wgsl$/, ".spvasm")),
      listing.slice(0, listing.lastIndexOf(END) + END.length),
    );
}
console.log(result.trim());
