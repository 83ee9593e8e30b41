/**
 * Learn which kernels a call of TVM's virtual machine launches, without a change to its web runtime and without a launch.
 *
 * Shapes are static and memory is planned when a bundle is built, so a function launches the same kernels at every call,
 * with the same arguments. This alters the device before the runtime gets it. While a call is traced,
 *
 *  - a storage buffer that the runtime creates is none of the device's: it stands for the workspace that the call needs;
 *  - launches are written down: pipeline, workgroups, and for each binding its buffer or the content of its uniform buffer;
 *  - anything else that the runtime asks of the device ends the trace.
 *
 * At all times a uniform buffer that the runtime creates holds its content on the host, and launches with equal content read
 * one buffer on the device, which is written once.
 */

/** A buffer that the runtime created while a call was traced. */
export class Planned {
  isDestroyed = false;

  constructor(readonly size: number) {}

  destroy(): void {
    this.isDestroyed = true;
  }
}

/** What a launch binds: a buffer, and how much of it. */
export interface Binding extends Omit<GPUBufferBinding, "buffer"> {
  readonly binding: number;
  readonly buffer: GPUBuffer | Planned;
}

/** A launch of a kernel as it was written down. */
export interface Launch {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly bindings: readonly Binding[];
  readonly workgroups: readonly [number, number, number];
}

/** What stands for a uniform buffer. */
class Uniform {
  content = new Uint32Array();

  destroy(): void {}
}

/** A bind group that was written down. */
type Group = Pick<Launch, "layout" | "bindings">;

/** Ends a trace: the runtime asked the device for something that is no launch. */
class Untraceable extends Error {}

/** Every command besides launches. While a call is traced, it ends the trace. */
const OTHER_COMMANDS = ["copyBufferToBuffer", "clearBuffer", "copyBufferToTexture", "beginRenderPass"] as const;

export class Launches {
  private readonly createBuffer: GPUDevice["createBuffer"];
  private readonly writeBuffer: GPUQueue["writeBuffer"];
  /** Uniform buffers on the device, by content. There are as many as different arguments of kernels: some hundred. */
  private readonly contents = new Map<string, GPUBuffer>();
  /** Encoders with commands that are not submitted yet. */
  private readonly open = new Set<GPUCommandEncoder>();
  private tracing: Launch[] | undefined;
  private planned: Planned[] = [];
  private tracedLaunches = 0;
  private untraceable: Untraceable | undefined;
  /** Learns the buffer of the next write, which does not happen. */
  private sought: { buffer?: GPUBuffer | Planned } | undefined;
  private latest: { size: number; buffer?: GPUBuffer } | undefined;

  /** @param onDestroyed is called with each buffer that the runtime destroys, before it is gone */
  constructor(
    private readonly device: GPUDevice,
    private readonly onDestroyed: (buffer: GPUBuffer) => void = () => {},
  ) {
    this.createBuffer = device.createBuffer.bind(device);
    this.writeBuffer = device.queue.writeBuffer.bind(device.queue);
    this.takeOverBuffers();
    this.takeOverBindGroups();
    this.takeOverEncoders();
  }

  /** How many launches of all traces never reached the device. */
  get traced(): number {
    return this.tracedLaunches;
  }

  /** Whether the runtime has commands that it has not submitted yet. */
  get pending(): boolean {
    return this.open.size > 0;
  }

  /**
   * Let `call` run without the device, and return what it would have launched, with the buffers that it planned and did not
   * destroy; undefined if it asked the device for anything else than launches.
   */
  trace<T>(call: () => T): { result: T; launches: readonly Launch[]; planned: readonly Planned[] } | undefined {
    const launches: Launch[] = [];
    this.tracing = launches;
    this.planned = [];
    this.untraceable = undefined;
    try {
      const result = call();
      return { result, launches, planned: this.planned };
    } catch (error) {
      if (this.untraceable === undefined) throw error;
      return undefined; // the runtime's error only repeats the message of ours
    } finally {
      this.tracing = undefined;
    }
  }

  /** Return the buffer that `write` would write to. Nothing is written. */
  find(write: () => void): GPUBuffer | Planned {
    this.sought = {};
    try {
      write();
      if (this.sought.buffer === undefined) throw new Error("nothing was written");
      return this.sought.buffer;
    } finally {
      this.sought = undefined;
    }
  }

  /** Return the buffer that `create` lets the runtime create, which gets at least `size` bytes. */
  created<T>(size: number, create: () => T): { result: T; buffer: GPUBuffer } {
    this.latest = { size };
    try {
      const result = create();
      const { buffer } = this.latest;
      if (buffer === undefined) throw new Error("no buffer was created");
      return { result, buffer };
    } finally {
      this.latest = undefined;
    }
  }

  /** Create a buffer for what calls write and read while they run. */
  workspace(size: number): GPUBuffer {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    return this.createBuffer({ label: "workspace", size, usage });
  }

  private takeOverBuffers(): void {
    const { device } = this;
    const { queue } = device;
    device.createBuffer = (descriptor) => {
      // So, and only so, the runtime creates the uniform buffers of its launches.
      if (descriptor.usage === (GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST)) {
        return new Uniform() as unknown as GPUBuffer;
      }
      if (this.tracing !== undefined) {
        if (!(descriptor.usage & GPUBufferUsage.STORAGE)) throw this.end("a buffer that is no storage");
        const planned = new Planned(descriptor.size);
        this.planned.push(planned);
        return planned as unknown as GPUBuffer;
      }
      const buffer = this.createBuffer({ ...descriptor, size: Math.max(descriptor.size, this.latest?.size ?? 0) });
      if (this.latest !== undefined) this.latest.buffer = buffer;
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => {
        this.onDestroyed(buffer);
        destroy();
      };
      return buffer;
    };
    queue.writeBuffer = (buffer, offset, data, ...range) => {
      const target: unknown = buffer;
      if (target instanceof Uniform) {
        if (offset !== 0 || range.length || !(data instanceof ArrayBuffer))
          throw new Error("a uniform buffer is written in part");
        target.content = new Uint32Array(data);
      } else if (this.sought !== undefined) this.sought.buffer = buffer;
      else if (this.tracing !== undefined) throw this.end("a write");
      else this.writeBuffer(buffer, offset, data, ...range);
    };
    const destroy = device.destroy.bind(device);
    device.destroy = () => {
      for (const buffer of this.contents.values()) buffer.destroy();
      destroy();
    };
  }

  private takeOverBindGroups(): void {
    const { device } = this;
    const createBindGroup = device.createBindGroup.bind(device);
    device.createBindGroup = ({ layout, entries, ...others }) => {
      const bindings = Array.from(entries, ({ binding, resource }) => {
        const { buffer, offset, size } = resource as GPUBufferBinding;
        const bound: unknown = buffer;
        return { binding, buffer: bound instanceof Uniform ? this.uniform(bound.content) : buffer, offset, size };
      });
      if (this.tracing !== undefined) return { layout, bindings } satisfies Group as unknown as GPUBindGroup;
      const real = bindings.map(({ binding, ...resource }) => ({ binding, resource }));
      return createBindGroup({ ...others, layout, entries: real });
    };
  }

  private takeOverEncoders(): void {
    const { device } = this;
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    device.createCommandEncoder = (descriptor) => {
      const encoder = createCommandEncoder(descriptor);
      this.open.add(encoder);
      const beginComputePass = encoder.beginComputePass.bind(encoder);
      encoder.beginComputePass = (passDescriptor) => {
        return this.tracing === undefined ? beginComputePass(passDescriptor) : this.tracingPass(this.tracing);
      };
      const finish = encoder.finish.bind(encoder);
      encoder.finish = (finishDescriptor) => {
        this.open.delete(encoder);
        return finish(finishDescriptor);
      };
      const commands = encoder as unknown as Record<string, ((...parameters: unknown[]) => unknown) | undefined>;
      for (const name of OTHER_COMMANDS) {
        const command = commands[name]?.bind(encoder);
        if (command === undefined) continue; // no browser has them all
        commands[name] = (...parameters) => {
          if (this.tracing !== undefined) throw this.end(name);
          return command(...parameters);
        };
      }
      return encoder;
    };
  }

  private tracingPass(launches: Launch[]): GPUComputePassEncoder {
    let pipeline: GPUComputePipeline;
    let group: Group;
    const count = () => this.tracedLaunches++;
    const pass = {
      setPipeline(next: GPUComputePipeline) {
        pipeline = next;
      },
      setBindGroup(_index: number, next: unknown) {
        group = next as Group;
      },
      dispatchWorkgroups(x: number, y = 1, z = 1) {
        launches.push({ pipeline, ...group, workgroups: [x, y, z] });
        count();
      },
      end() {},
    };
    return pass as unknown as GPUComputePassEncoder;
  }

  private end(what: string): Untraceable {
    this.untraceable = new Untraceable(`a traced call asks for ${what}`);
    return this.untraceable;
  }

  /** A uniform buffer on the device with this content. */
  private uniform(content: Uint32Array<ArrayBuffer>): GPUBuffer {
    const key = content.join();
    const kept = this.contents.get(key);
    if (kept !== undefined) return kept;
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const buffer = this.createBuffer({ label: `arguments ${key}`, size: content.byteLength, usage });
    this.writeBuffer(buffer, 0, content);
    this.contents.set(key, buffer);
    return buffer;
  }
}
