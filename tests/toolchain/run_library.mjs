// Instantiate a linked library under node and print, as JSON, what happens.
//
//   node run_library.mjs <folder with node_modules> <library.wasm> [<inputs.json>]
//
// Without inputs.json only what the library imports and exports. With it, `attention` of the library is called on the CPU.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [packageFolder, libraryPath, inputsPath] = process.argv.slice(2);
const tvmjs = createRequire(join(resolve(packageFolder), "package.json"))("@mlc-ai/web-runtime");

const bytes = readFileSync(libraryPath);
const module = new WebAssembly.Module(bytes);
const report = {
  imports: WebAssembly.Module.imports(module).map(({ module, name }) => `${module}.${name}`).sort(),
  exports: WebAssembly.Module.exports(module).map(({ name }) => name),
  printed: "",
};

let memory;
const view = () => new DataView(memory.buffer);
const wasi = {
  fd_write: (_, iovs, count, writtenOut) => {
    let written = 0;
    for (let i = 0; i < count; ++i) {
      const start = view().getUint32(iovs + 8 * i, true);
      const length = view().getUint32(iovs + 8 * i + 4, true);
      report.printed += new TextDecoder().decode(new Uint8Array(memory.buffer, start, length));
      written += length;
    }
    view().setUint32(writtenOut, written, true);
    return 0;
  },
  proc_exit: (code) => {
    throw new Error(`the library exited with ${code}`);
  },
};
const start = (instance) => {
  memory = instance.exports.memory;
  instance.exports._initialize();
};

const tvm = await tvmjs.instantiate(bytes, { imports: { wasi_snapshot_preview1: wasi }, start });
report.instantiated = true;
report.initialMemoryBytes = memory.buffer.byteLength;

if (inputsPath !== undefined) {
  tvm.beginScope();
  const tensors = JSON.parse(readFileSync(inputsPath, "utf-8")).map(({ shape, values }) =>
    tvm.empty(shape, "float32").copyFrom(values),
  );
  const attention = tvm.createVirtualMachine(tvm.cpu()).getFunction("attention");
  const call = (...args) => Array.from(attention(...args).toArray());
  const caught = (action) => {
    try {
      action();
    } catch (error) {
      return { class: error.constructor.name, message: error.message };
    }
    return { class: "nothing was thrown" };
  };
  report.output = call(...tensors);
  report.badShape = caught(() => call(tensors[1], tensors[1], tensors[2]));
  report.badCount = caught(() => call(tensors[0]));
  report.unknownGlobal = caught(() => tvm.getGlobalFunc("no.such.function"));
  report.badDtype = caught(() => call(tvm.empty(tensors[0].shape, "int32"), tensors[1], tensors[2]));
  report.noFiles = caught(() => tvm.getGlobalFunc("ffi.Module.load_from_file.relax.VMExecutable")("/library.so"));
  report.outOfMemory = caught(() => tvm.empty([530e6], "float32")); // 2.12 GB, beside what there is in 2 GiB
  report.over2GiB = caught(() => tvm.empty([600e6], "float32")); // does not fit a signed 32-bit number of bytes
  report.outputAfterErrors = call(...tensors);
  tvm.empty([64 << 20], "float32");
  report.grownMemoryBytes = memory.buffer.byteLength;
  report.outputAfterGrowth = call(...tensors);
  tvm.endScope();
}
console.log(JSON.stringify(report));
process.exit(0);
