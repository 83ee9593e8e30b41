/**
 * Runs a piece of work on a WebGPU device: checks each kernel's output once, then times all kernels in turns.
 * Twin: mlc_controlnet/tuning/browser/work.py.
 */

import { drawValues } from "./values.mjs";

const MOST_LAUNCHES = 4096; // of a sample
const MANY_LAUNCHES = 256; // which no GPU does in less than a tick of its clock
const WALL_SAMPLES = 3; // times as long: they include the way to the GPU and back
const NOT_A_NUMBER = 0xffffffff; // the bits of a float32 and of two float16
const COPIES = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/**
 * @typedef {{ dtype: string, count: number, seed: number }} Tensor
 * @typedef {{
 *   wgsl: string,
 *   workgroups: [number, number, number],
 *   bindings: { binding: number, buffer: number }[],
 *   uniform: { binding: number, words: number[] },
 * }} Kernel
 * @typedef {{
 *   title: string,
 *   buffers: Tensor[],
 *   kernels: Kernel[],
 *   runs: [number, number][],
 *   rounds: number,
 *   sample_ms: number,
 *   budget_ms: number,
 * }} Work buffers: the output is the last. runs: first place and length of the output's elements to be told.
 * @typedef {{ seconds: number[], values: string, not_finite: number, problem: string }} KernelAnswer
 * @typedef {{ kernels: KernelAnswer[], load_ms: number, pipeline_ms: number, run_ms: number }} Answer
 * @typedef {{ pipeline: GPUComputePipeline, bindGroup: GPUBindGroup, workgroups: [number, number, number] }} Launch
 */

/** A device, with the buffers of the operation that it measured last. */
export class Bench {
  #operands = "";
  /** @type {GPUBuffer[]} */
  #buffers = [];
  /** @type {GPUBuffer | undefined} */
  #blank;
  /** @type {Clock} */
  #clock;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.device = device;
    this.#clock = new Clock(device);
  }

  /** @param {Work} work @returns {Promise<Answer>} */
  async measure(work) {
    const began = performance.now();
    const fault = await this.#scoped(async () => this.#load(work.buffers));
    await this.device.queue.onSubmittedWorkDone();
    const loaded = performance.now();
    /** @type {KernelAnswer[]} */
    const answers = [];
    /** @type {(Launch | undefined)[]} */
    const launches = [];
    for (const kernel of work.kernels) {
      const answer = { seconds: [], values: "", not_finite: 0, problem: fault };
      /** @type {Launch | undefined} */
      let launch;
      const problem = await this.#scoped(async () => {
        if (fault === "") launch = await this.#prepare(kernel);
      });
      answer.problem ||= problem;
      answers.push(answer);
      launches.push(answer.problem === "" ? launch : undefined);
    }
    const prepared = performance.now();
    for (const [i, launch] of launches.entries()) {
      if (launch === undefined) continue;
      answers[i].problem = await this.#scoped(() => this.#check(launch, work, answers[i]));
      if (answers[i].problem !== "" || answers[i].not_finite) launches[i] = undefined;
    }
    await this.#time(work, launches, answers);
    const ran = performance.now();
    return { kernels: answers, load_ms: loaded - began, pipeline_ms: prepared - loaded, run_ms: ran - prepared };
  }

  /** Run an action and return what WebGPU says against it, or its own error; empty: nothing. @param {() => Promise<void>} action */
  async #scoped(action) {
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    let problem = "";
    try {
      await action();
    } catch (error) {
      problem = String(/** @type {Error} */ (error).message ?? error);
    }
    const errors = [await device.popErrorScope(), await device.popErrorScope()];
    return errors.find((error) => error !== null)?.message || problem;
  }

  /** Make the buffers of an operation, if they are not there from the last piece of work. @param {Tensor[]} tensors */
  #load(tensors) {
    const operands = JSON.stringify(tensors);
    if (operands === this.#operands) return;
    this.#operands = "";
    for (const buffer of [...this.#buffers, this.#blank]) buffer?.destroy();
    this.#buffers = tensors.map(({ dtype, count, seed }, i) => {
      const isOutput = i === tensors.length - 1;
      return this.#bufferOf(isOutput ? new Uint32Array(wordsOf(dtype, count)) : drawValues(dtype, count, seed));
    });
    const { dtype, count } = tensors[tensors.length - 1];
    this.#blank = this.#bufferOf(new Uint32Array(wordsOf(dtype, count)).fill(NOT_A_NUMBER));
    this.#operands = operands;
  }

  /** @param {Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>} content */
  #bufferOf(content) {
    const buffer = this.device.createBuffer({ size: content.byteLength, usage: GPUBufferUsage.STORAGE | COPIES });
    this.device.queue.writeBuffer(buffer, 0, content);
    return buffer;
  }

  /** @param {Kernel} kernel @returns {Promise<Launch>} */
  async #prepare({ wgsl, workgroups, bindings, uniform }) {
    const { device } = this;
    const module = device.createShaderModule({ code: wgsl });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
    const words = new Uint32Array(uniform.words);
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const grid = device.createBuffer({ size: words.byteLength, usage });
    device.queue.writeBuffer(grid, 0, words);
    const entries = bindings.map(({ binding, buffer }) => ({ binding, resource: { buffer: this.#buffers[buffer] } }));
    entries.push({ binding: uniform.binding, resource: { buffer: grid } });
    return {
      pipeline,
      bindGroup: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      workgroups,
    };
  }

  /** Run a kernel once over an output without numbers, and read all of it. @param {Launch} launch @param {Work} work @param {KernelAnswer} answer */
  async #check(launch, work, answer) {
    const { device } = this;
    const output = this.#buffers[this.#buffers.length - 1];
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = device.createBuffer({ size: output.size, usage });
    try {
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(/** @type {GPUBuffer} */ (this.#blank), 0, output, 0, output.size);
      const pass = encoder.beginComputePass();
      encode(pass, launch, 1);
      pass.end();
      encoder.copyBufferToBuffer(output, 0, staging, 0, output.size);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const { dtype, count } = work.buffers[work.buffers.length - 1];
      const content = staging.getMappedRange();
      const bits = dtype === "float16" ? new Uint16Array(content, 0, count) : new Uint32Array(content, 0, count);
      const exponent = dtype === "float16" ? 0x7c00 : 0x7f800000; // all of its bits are set in what is not finite
      let notFinite = 0;
      for (let i = 0; i < count; i++) if ((bits[i] & exponent) === exponent) notFinite++;
      answer.not_finite = notFinite;
      answer.values = toBase64(work.runs.map(([first, length]) => bits.subarray(first, first + length)));
    } finally {
      staging.destroy();
    }
  }

  /** Time kernels in turns. @param {Work} work @param {(Launch | undefined)[]} launches @param {KernelAnswer[]} answers */
  async #time({ rounds, sample_ms, budget_ms }, launches, answers) {
    const counts = launches.map(() => 1);
    const isEnough = (/** @type {number} */ elapsed) => elapsed >= sample_ms * (this.#clock.isOnGpu ? 1 : WALL_SAMPLES);
    for (const [i, launch] of launches.entries()) {
      if (launch === undefined) continue;
      // A GPU's clock rises under load: repeat until a sample is long enough, and warm up thereby.
      let elapsed = await this.#clock.time(launch, 1);
      while (!isEnough(elapsed) && counts[i] < MOST_LAUNCHES) {
        const wanted = elapsed > 0 ? Math.ceil((1.2 * sample_ms * counts[i]) / elapsed) : 8 * counts[i];
        counts[i] = Math.min(MOST_LAUNCHES, 16 * counts[i], Math.max(wanted, counts[i] + 1));
        elapsed = await this.#clock.time(launch, counts[i]);
      }
    }
    const ends = performance.now() + budget_ms;
    for (let round = 0; round < rounds && (round === 0 || performance.now() < ends); round++) {
      for (const [i, launch] of launches.entries()) {
        if (launch === undefined) continue;
        const elapsed = await this.#clock.time(launch, counts[i]);
        answers[i].seconds.push(elapsed / counts[i] / 1000);
      }
    }
  }
}

/** Times launches: on the GPU's own clock where the device has one, else from their submission to their end. */
class Clock {
  /** @type {{ queries: GPUQuerySet, resolved: GPUBuffer, staging: GPUBuffer } | undefined} */
  #gpu;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.device = device;
    if (!device.features.has("timestamp-query")) return;
    this.#gpu = {
      queries: device.createQuerySet({ type: "timestamp", count: 2 }),
      resolved: device.createBuffer({ size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC }),
      staging: device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST }),
    };
  }

  get isOnGpu() {
    return this.#gpu !== undefined;
  }

  /** Return the milliseconds of so many launches, one after the other. @param {Launch} launch @param {number} count */
  async time(launch, count) {
    const { device } = this;
    const began = performance.now();
    const encoder = device.createCommandEncoder();
    const gpu = this.#gpu;
    const pass = encoder.beginComputePass(
      gpu && { timestampWrites: { querySet: gpu.queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } },
    );
    encode(pass, launch, count);
    pass.end();
    if (gpu === undefined) {
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
      return performance.now() - began;
    }
    encoder.resolveQuerySet(gpu.queries, 0, 2, gpu.resolved, 0);
    encoder.copyBufferToBuffer(gpu.resolved, 0, gpu.staging, 0, 16);
    device.queue.submit([encoder.finish()]);
    await gpu.staging.mapAsync(GPUMapMode.READ);
    const [begin, end] = new BigUint64Array(gpu.staging.getMappedRange());
    gpu.staging.unmap();
    if (end > begin || count < MANY_LAUNCHES) return Number(end - begin) / 1e6;
    this.#gpu = undefined; // the clock stands still, as some drivers' do
    return performance.now() - began;
  }
}

/** @param {GPUComputePassEncoder} pass @param {Launch} launch @param {number} count */
function encode(pass, { pipeline, bindGroup, workgroups }, count) {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  for (let i = 0; i < count; i++) pass.dispatchWorkgroups(...workgroups);
}

/** @param {string} dtype @param {number} count */
function wordsOf(dtype, count) {
  return dtype === "float16" ? Math.ceil(count / 2) : count;
}

/** @param {ArrayBufferView[]} views */
function toBase64(views) {
  let text = "";
  for (const { buffer, byteOffset, byteLength } of views) {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return btoa(text);
}
