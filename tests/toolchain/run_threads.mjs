// Run `multiply` of a library for processors under node, on one thread, with threads that never come and with
// threads that do; print as JSON what came out.
//
//   node run_threads.mjs <folder with node_modules> <library.wasm> <inputs.json> <threads>
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const STACK_BYTES = 1 << 20;

async function run(packageFolder, libraryPath, inputsPath, threads) {
  const tvmjs = createRequire(join(resolve(packageFolder), "package.json"))("@mlc-ai/web-runtime");
  const module = await WebAssembly.compile(readFileSync(libraryPath));
  const memory = new WebAssembly.Memory({ initial: 512, maximum: 32768, shared: true });
  let library;
  const wasi = { fd_write: () => 0, proc_exit: () => {} };
  const start = (instance) => {
    library = instance.exports;
    library._initialize();
  };
  const tvm = new tvmjs.Instance(module, { imports: { env: { memory }, wasi_snapshot_preview1: wasi }, start });
  tvm.beginScope();
  const tensors = JSON.parse(readFileSync(inputsPath, "utf-8")).map(({ shape, values }) =>
    tvm.empty(shape, "float32").copyFrom(values),
  );
  const multiply = tvm.createVirtualMachine(tvm.cpu()).getFunction("multiply");
  const call = () => Array.from(multiply(...tensors).toArray());
  const one = call();
  library.mlc_use_threads(threads);
  const alone = call(); // none of the others has begun
  for (let part = 1; part < threads; part++) {
    const stack = library.mlc_thread_stack(STACK_BYTES) + STACK_BYTES;
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { module, memory, stack, part } });
    await new Promise((ready) => worker.once("message", ready));
  }
  let different = 0; // of many launches: each must wait for all of its parts
  for (let launch = 0; launch < 200; launch++) different += Number(String(call()) !== String(one));
  process.stdout.write(JSON.stringify({ imports: importsOf(module), one, alone, different }), () => process.exit(0));
}

function importsOf(module) {
  return WebAssembly.Module.imports(module).map(({ module: from, name }) => `${from}.${name}`);
}

function runThread({ module, memory, stack, part }) {
  const imports = { env: { memory }, wasi_snapshot_preview1: {} };
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (kind === "function") imports[from][name] = () => {};
  }
  const library = new WebAssembly.Instance(module, imports).exports;
  library.__stack_pointer.value = stack;
  parentPort.postMessage("ready");
  library.mlc_run_thread(part);
}

if (isMainThread) await run(...process.argv.slice(2, 5), Number(process.argv[5]));
else runThread(workerData);
