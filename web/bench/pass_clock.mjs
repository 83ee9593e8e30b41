/** Time every compute pass of a device with the GPU's own clock. */

/** The largest number of queries that a query set may hold; a pass needs two. */
const QUERIES = 4096;

/** After start(), records the kernel of each compute pass, and its begin and end on the GPU's clock. */
export class PassClock {
  /** @type {{ kernel: string, grid: string }[]} */
  passes = [];
  /** @type {GPUQuerySet[]} */
  querySets = [];
  recording = false;

  /** @param {GPUDevice} device a device with the feature timestamp-query */
  constructor(device) {
    this.device = device;
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    device.createCommandEncoder = (descriptor) => {
      const encoder = createCommandEncoder(descriptor);
      const begin = encoder.beginComputePass.bind(encoder);
      encoder.beginComputePass = (options) => (this.recording ? this.timed(begin) : begin(options));
      return encoder;
    };
  }

  start() {
    for (const querySet of this.querySets) querySet.destroy();
    this.querySets = [];
    this.passes = [];
    this.recording = true;
  }

  /** @param {GPUCommandEncoder["beginComputePass"]} begin */
  timed(begin) {
    const index = this.passes.length;
    const first = (2 * index) % QUERIES;
    if (first === 0) this.querySets.push(this.device.createQuerySet({ type: "timestamp", count: QUERIES }));
    const querySet = /** @type {GPUQuerySet} */ (this.querySets.at(-1));
    const record = { kernel: "", grid: "" };
    this.passes.push(record);
    const timestampWrites = { querySet, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 };
    const pass = begin({ timestampWrites });
    const setPipeline = pass.setPipeline.bind(pass);
    pass.setPipeline = (pipeline) => {
      record.kernel = pipeline.label;
      setPipeline(pipeline);
    };
    const dispatch = pass.dispatchWorkgroups.bind(pass);
    pass.dispatchWorkgroups = (x, y, z) => {
      record.grid = `${x}x${y ?? 1}x${z ?? 1}`;
      dispatch(x, y, z);
    };
    return pass;
  }

  /** Stop recording, and return the milliseconds of each pass, in order. */
  async durations() {
    this.recording = false;
    const bytes = 8 * QUERIES;
    const milliseconds = [];
    for (const querySet of this.querySets) {
      const resolved = this.device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
      });
      const staging = this.device.createBuffer({
        size: bytes,
        usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
      });
      const encoder = this.device.createCommandEncoder();
      encoder.resolveQuerySet(querySet, 0, QUERIES, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
      this.device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const ticks = new BigUint64Array(staging.getMappedRange());
      for (let i = 0; i < QUERIES; i += 2) milliseconds.push(Number(ticks[i + 1] - ticks[i]) / 1e6);
      resolved.destroy();
      staging.destroy();
    }
    return milliseconds.slice(0, this.passes.length);
  }
}
