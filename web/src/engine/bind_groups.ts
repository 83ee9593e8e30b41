/** Bind groups and uniform buffers that are made once and used by every launch that needs the same. */

import { Recent } from "./recent.ts";

/** How many bind groups are kept: Stable Diffusion 1.5 with a ControlNet needs some 2,000 for a picture. */
const KEPT_BIND_GROUPS = 8192;
/** How many contents of uniform buffers are kept. A launch's are its scalar arguments and the size of its grid. */
const KEPT_CONTENTS = 1024;

/**
 * Alter `device` so that it makes each bind group once for the same layout, buffers and contents of uniform buffers.
 *
 * A uniform buffer is then on the host, and its content is read when a bind group is made with it. The runtime writes it
 * before, as a whole, and not again until the launch is submitted; other use throws.
 */
export function keepBindGroups(device: GPUDevice): void {
  new BindGroups(device).takeOver(device);
}

/** What stands for a uniform buffer. */
class Uniform {
  content = new Uint32Array();
  /** How many submissions there were when a bind group was made with it. */
  readAt = -1;

  destroy(): void {}
}

/** Of a buffer on the device: a number that no other has or had, and the hashes of the bind groups that it is in. */
interface Known {
  readonly number: number;
  readonly hashes: Set<number>;
}

/** A bind group and what it was made of. */
interface Kept {
  readonly group: GPUBindGroup;
  readonly layout: GPUBindGroupLayout;
  readonly entries: readonly Binding[];
}

interface Binding extends Omit<GPUBufferBinding, "buffer"> {
  readonly binding: number;
  /** On the device, and what is known of it. */
  readonly buffer?: GPUBuffer;
  readonly known?: Known;
  /** Of a uniform buffer. */
  readonly content?: Uint32Array<ArrayBuffer>;
}

class BindGroups {
  private readonly createBuffer: GPUDevice["createBuffer"];
  private readonly createBindGroup: GPUDevice["createBindGroup"];
  private readonly writeBuffer: GPUQueue["writeBuffer"];
  private readonly layouts = new WeakMap<GPUBindGroupLayout, number>();
  private readonly buffers = new WeakMap<GPUBuffer, Known>();
  /** By hash. Of two with the same hash, the later one is kept. */
  private readonly groups = new Recent<number, Kept>(KEPT_BIND_GROUPS, ({ entries }, hash) => {
    for (const { known } of entries) known?.hashes.delete(hash);
  });
  /** By content. Those that make room are not destroyed: a launch that is not submitted yet may read them. */
  private readonly contents = new Recent<string, GPUBuffer>(KEPT_CONTENTS);
  private numbered = 0;
  private submissions = 0;

  constructor(device: GPUDevice) {
    this.createBuffer = device.createBuffer.bind(device);
    this.createBindGroup = device.createBindGroup.bind(device);
    this.writeBuffer = device.queue.writeBuffer.bind(device.queue);
  }

  takeOver(device: GPUDevice): void {
    const { queue } = device;
    const submit = queue.submit.bind(queue);
    device.createBuffer = (descriptor) => this.buffer(descriptor);
    device.createBindGroup = (descriptor) => this.bindGroup(descriptor);
    queue.writeBuffer = (buffer, ...parameters) => {
      const uniform: unknown = buffer;
      if (uniform instanceof Uniform) this.fill(uniform, ...parameters);
      else this.writeBuffer(buffer, ...parameters);
    };
    queue.submit = (commands) => {
      this.submissions++;
      submit(commands);
    };
    const destroy = device.destroy.bind(device);
    device.destroy = () => {
      for (const buffer of this.contents.values()) buffer.destroy();
      destroy();
    };
  }

  private buffer(descriptor: GPUBufferDescriptor): GPUBuffer {
    // So, and only so, the runtime creates the uniform buffers of its launches.
    if (descriptor.usage === (GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST)) {
      return new Uniform() as unknown as GPUBuffer;
    }
    const buffer = this.createBuffer(descriptor);
    const known = { number: ++this.numbered, hashes: new Set<number>() };
    this.buffers.set(buffer, known);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      for (const hash of [...known.hashes]) this.groups.delete(hash);
      destroy();
    };
    return buffer;
  }

  private fill(uniform: Uniform, offset: number, data: unknown, ...range: unknown[]): void {
    if (offset !== 0 || range.length || !(data instanceof ArrayBuffer)) {
      throw new Error("a uniform buffer is written in part");
    }
    const content = new Uint32Array(data);
    if (uniform.readAt === this.submissions && !equal(content, uniform.content)) {
      throw new Error("a uniform buffer changes before the launch that reads it is submitted");
    }
    uniform.content = content;
  }

  private bindGroup(descriptor: GPUBindGroupDescriptor): GPUBindGroup {
    const { layout } = descriptor;
    const entries = descriptor.entries as readonly GPUBindGroupEntry[];
    let hash = this.numberOf(layout);
    for (let i = 0; i < entries.length; i++) {
      const { buffer } = entries[i].resource as GPUBufferBinding;
      const uniform: unknown = buffer;
      if (uniform instanceof Uniform) {
        const { content } = uniform;
        uniform.readAt = this.submissions;
        for (let word = 0; word < content.length; word++) hash = mixed(hash, content[word]);
        continue;
      }
      const known = this.buffers.get(buffer);
      if (known === undefined) return this.create(descriptor); // this would not learn of its destruction
      hash = mixed(hash, known.number);
    }
    const kept = this.groups.get(hash);
    if (kept !== undefined && kept.layout === layout && sameEntries(kept.entries, entries)) return kept.group;
    const group = this.create(descriptor);
    const bindings = entries.map((entry) => this.bindingOf(entry));
    this.groups.set(hash, { group, layout, entries: bindings });
    for (const { known } of bindings) known?.hashes.add(hash);
    return group;
  }

  private bindingOf({ binding, resource }: GPUBindGroupEntry): Binding {
    const { buffer, offset, size } = resource as GPUBufferBinding;
    const uniform: unknown = buffer;
    if (uniform instanceof Uniform) return { binding, content: uniform.content };
    return { binding, buffer, known: this.buffers.get(buffer), offset, size };
  }

  private create({ entries, ...others }: GPUBindGroupDescriptor): GPUBindGroup {
    const real = Array.from(entries, ({ binding, resource }) => {
      const { buffer: uniform } = resource as { buffer?: unknown };
      if (!(uniform instanceof Uniform)) return { binding, resource };
      return { binding, resource: { buffer: this.bufferOf(uniform.content) } };
    });
    return this.createBindGroup({ ...others, entries: real });
  }

  /** A uniform buffer on the device with this content. */
  private bufferOf(content: Uint32Array<ArrayBuffer>): GPUBuffer {
    const key = content.join();
    const kept = this.contents.get(key);
    if (kept !== undefined) return kept;
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const buffer = this.createBuffer({ label: `arguments ${key}`, size: content.byteLength, usage });
    this.writeBuffer(buffer, 0, content);
    this.contents.set(key, buffer);
    return buffer;
  }

  private numberOf(layout: GPUBindGroupLayout): number {
    const known = this.layouts.get(layout);
    if (known !== undefined) return known;
    this.layouts.set(layout, ++this.numbered);
    return this.numbered;
  }
}

/** Mix a word into a hash of 32 bits (murmur3's finalizer has this constant and shift). */
function mixed(hash: number, word: number): number {
  const product = Math.imul(hash ^ word, 0x85ebca6b);
  return product ^ (product >>> 13);
}

/** Compared in place: this runs at every launch, and would make garbage of a list for each. */
function sameEntries(kept: readonly Binding[], entries: readonly GPUBindGroupEntry[]): boolean {
  if (kept.length !== entries.length) return false;
  for (let i = 0; i < kept.length; i++) {
    const one = kept[i];
    const { buffer, offset, size } = entries[i].resource as GPUBufferBinding;
    const uniform: unknown = buffer;
    if (one.binding !== entries[i].binding) return false;
    if (uniform instanceof Uniform) {
      if (one.content === undefined || !equal(one.content, uniform.content)) return false;
    } else if (one.buffer !== buffer || one.offset !== offset || one.size !== size) return false;
  }
  return true;
}

function equal(one: Uint32Array, other: Uint32Array): boolean {
  if (one.length !== other.length) return false;
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
}
