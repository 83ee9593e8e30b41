/** A GPUDevice that computes on arrays, and refuses what WebGPU refuses. It counts what reaches it. */

const STORAGE = 0x80;
const UNIFORM = 0x40;
const COPY = 0x0c;
export const USAGE = {
  STORAGE,
  UNIFORM,
  COPY_DST: 0x08,
  COPY_SRC: 0x04,
  storage: STORAGE | COPY,
  uniform: UNIFORM | 0x08,
};

/** What a kernel does to its buffers: the last one is the uniform's. */
export type Kernel = (buffers: Uint32Array[], workgroups: number) => void;
type Command = () => void;

export class FakeBuffer {
  words: Uint32Array;
  destroyed = false;
  constructor(readonly size: number) {
    this.words = new Uint32Array(size / 4);
  }
  destroy() {
    this.destroyed = true;
  }
  live() {
    if (this.destroyed) throw new Error("a destroyed buffer is used");
    return this.words;
  }
}

interface Group {
  readonly entries: readonly { resource: { buffer: FakeBuffer; size?: number } }[];
}

class FakePass {
  private ended = false;
  private kernel: Kernel | undefined;
  private group: Group | undefined;
  constructor(
    private readonly commands: Command[],
    private readonly onEnd: () => void,
  ) {}
  setPipeline(kernel: Kernel) {
    this.kernel = kernel;
  }
  setBindGroup(_index: number, group: Group) {
    this.group = group;
  }
  dispatchWorkgroups(workgroups: number) {
    const { kernel, group } = this;
    if (this.ended || kernel === undefined || group === undefined) throw new Error("a pass is used wrongly");
    this.commands.push(() =>
      kernel(
        group.entries.map(({ resource }) => resource.buffer.live()),
        workgroups,
      ),
    );
  }
  end() {
    if (this.ended) throw new Error("a pass ends twice");
    this.ended = true;
    this.onEnd();
  }
}

export class FakeDevice {
  readonly features = new Set<string>();
  readonly counts = { passes: 0, bindGroups: 0, writes: 0, buffers: 0 };
  readonly queue = {
    submit: (buffers: Command[][]) => {
      for (const command of buffers.flat()) command();
    },
    writeBuffer: (buffer: FakeBuffer, offset: number, data: ArrayBuffer | Uint32Array) => {
      this.counts.writes++;
      buffer.live().set(data instanceof ArrayBuffer ? new Uint32Array(data) : data, offset / 4);
    },
  };

  /** All buffers that were made. */
  readonly buffers: FakeBuffer[] = [];

  destroy() {}

  createBuffer({ size }: { size: number }) {
    this.counts.buffers++;
    const buffer = new FakeBuffer(size);
    this.buffers.push(buffer);
    return buffer;
  }

  createBindGroup(group: Group) {
    this.counts.bindGroups++;
    for (const { resource } of group.entries) {
      if (!(resource.buffer instanceof FakeBuffer)) throw new Error("a bind group is made of something else");
      if ((resource.size ?? 0) > resource.buffer.size) throw new Error("a binding exceeds its buffer");
    }
    return group;
  }

  createCommandEncoder() {
    const commands: Command[] = [];
    let open = false;
    const closed = () => {
      if (open) throw new Error("a pass is open");
    };
    return {
      beginComputePass: (_descriptor?: object) => {
        closed();
        open = true;
        this.counts.passes++;
        return new FakePass(commands, () => {
          open = false;
        });
      },
      copyBufferToBuffer: (from: FakeBuffer, start: number, to: FakeBuffer, target: number, bytes: number) => {
        closed();
        commands.push(() => to.live().set(from.live().subarray(start / 4, (start + bytes) / 4), target / 4));
      },
      finish: () => {
        closed();
        return commands;
      },
    };
  }
}
