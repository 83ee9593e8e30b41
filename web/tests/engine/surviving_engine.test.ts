import { beforeEach, describe, expect, test, vi } from "vitest";
import type { ChosenDevice } from "../../src/engine/choose_device";
import type { Context, FloatArray, OnDevice } from "../../src/engine/components";
import type { Engine } from "../../src/engine/engine";
import { UserError } from "../../src/engine/errors";
import { MemoryFullError } from "../../src/engine/memory";
import { type LoadPlan, SurvivingEngine } from "../../src/engine/surviving_engine";
import { LINES, MEMORY, makeLibrary } from "./sample_bundle";

vi.mock("../../src/engine/patience", () => ({ LOSSES_MS: 60_000, ADAPTER_DELAYS_MS: [1, 1] }));

const lost = () => new UserError("GPU device", "lost: gone", "a device", "close tabs", "device-lost");
const full = () => new MemoryFullError({ name: "resident", ...MEMORY.resident });
const noAdapter = () => new UserError("WebGPU", "no adapter", "a GPU", "restart", "no-adapter");

/** What lives on one engine: it computes with sums of numbers, and what is of another engine has no numbers here. */
class FakeEngine {
  calls: string[] = [];
  alive = 0;
  failures: Record<string, () => Error> = {};
  unload = vi.fn();
  required: string[] = [];

  private value(name: string, numbers: number[]): Context & { numbers: number[]; engine: FakeEngine } {
    this.meet(name);
    this.alive++;
    return {
      numbers,
      engine: this,
      dispose: () => this.alive--,
      read: async () => [Float32Array.from(numbers)],
    };
  }
  private meet(name: string) {
    this.calls.push(name);
    const failure = this.failures[name];
    delete this.failures[name];
    if (failure) throw failure();
  }
  private read(...values: OnDevice[]): number {
    let sum = 0;
    for (const value of values as ReturnType<FakeEngine["value"]>[]) {
      if (value.engine !== this) throw new Error("a value of another device");
      sum += value.numbers[0];
    }
    return sum;
  }
  async require(names: string[]) {
    this.required.push(...names);
  }
  async textEncoder(ids: Int32Array) {
    return this.value("textEncoder", [ids[0]]);
  }
  async controlEmbedding(image: FloatArray) {
    return this.value("controlEmbedding", [image[0]]);
  }
  async controlnet(sample: FloatArray, _timestep: number, context: Context, control: OnDevice) {
    return this.value("controlnet", [sample[0] + this.read(context, control)]);
  }
  async residualSum(one: OnDevice, other: OnDevice) {
    return this.value("residualSum", [this.read(one, other)]);
  }
  async zeroResiduals() {
    return this.value("zeroResiduals", [0]);
  }
  async unet(sample: FloatArray, _timestep: number, context: Context, residuals: OnDevice) {
    this.meet("unet");
    return Float32Array.of(sample[0] + this.read(context, residuals));
  }
  async unetAndFeature(sample: FloatArray, _timestep: number, context: Context, residuals: OnDevice) {
    const output = Float32Array.of(sample[0] + this.read(context, residuals));
    return { output, feature: this.value("unetAndFeature", [2 * output[0]]) };
  }
  async unetShallow(sample: FloatArray, _t: number, context: Context, feature: OnDevice, residuals: OnDevice) {
    this.meet("unetShallow");
    return Float32Array.of(sample[0] + this.read(context, feature, residuals));
  }
  async vaeDecoder(latents: FloatArray) {
    this.meet("vaeDecoder");
    return latents;
  }
  stats() {
    return { dispatches: this.calls.length, peakGpuMebibytes: 7, gpuBytes: 1 };
  }
}

let engines: FakeEngine[];
let plans: LoadPlan[];
/** What loading the next engines fails with. */
let loadFailures: Error[];
let notices: string[];
const listener = { onNotice: (notice: string) => notices.push(notice) };

async function loadOnce(plan: LoadPlan) {
  plans.push(plan);
  const failure = loadFailures.shift();
  if (failure) throw failure;
  const engine = new FakeEngine();
  engines.push(engine);
  const dtype = plan.dtype ?? "float16";
  const chosen = { opened: { library: makeLibrary({ dtype }) } } as ChosenDevice;
  return { engine: engine as unknown as Engine, chosen, memory: { name: "resident" as const, ...MEMORY.resident } };
}
const load = () => SurvivingEngine.load(loadOnce, "auto", listener);

beforeEach(() => {
  [engines, plans, loadFailures, notices] = [[], [], [], []];
  vi.useRealTimers();
});

const sample = Float32Array.of(0.5);

/** One picture in small: two steps with ControlNets, and the decoder. `meanwhile` runs before each call. */
async function draw(surviving: SurvivingEngine, meanwhile: (call: string) => void = () => {}) {
  const before = <T>(name: string, call: () => Promise<T>) => {
    meanwhile(name);
    return call();
  };
  const context = await before("context", () => surviving.textEncoder(Int32Array.of(3)));
  const control = await before("control", () => surviving.controlEmbedding(Float32Array.of(10), LINES));
  let x: FloatArray = sample;
  for (const step of [1, 2]) {
    const [one, two] = [
      await before(`controlnet ${step}`, () => surviving.controlnet(x, 9, context, control, [1])),
      await surviving.controlnet(x, 9, context, control, [1]),
    ];
    const sum = await before(`sum ${step}`, () => surviving.residualSum(one, two));
    one.dispose();
    two.dispose();
    const { output, feature } = await before(`unet ${step}`, () => surviving.unetAndFeature(x, 9, context, sum));
    x = await before(`shallow ${step}`, () => surviving.unetShallow(output, 9, context, feature as OnDevice, sum));
    feature?.dispose();
    sum.dispose();
  }
  const picture = await before("decoder", () => surviving.vaeDecoder(x));
  for (const value of [control, context]) value.dispose();
  return [...picture];
}

describe("a device that is lost", () => {
  test.each([
    "context",
    "control",
    "controlnet 1",
    "sum 1",
    "unet 1",
    "shallow 1",
    "controlnet 2",
    "sum 2",
    "unet 2",
    "shallow 2",
    "decoder",
  ])("before %s costs that call: the picture is the same, and nothing stays on the next device", async (where) => {
    const undisturbed = await draw(await load());
    engines = [];
    const surviving = await load();
    const picture = await draw(surviving, (call) => {
      const [engine] = engines;
      if (call !== where) return;
      for (const name of ["textEncoder", "controlEmbedding", "controlnet", "residualSum"]) engine.failures[name] = lost;
      for (const name of ["unetAndFeature", "unetShallow", "vaeDecoder"]) engine.failures[name] = lost;
    });
    expect(picture).toEqual(undisturbed);
    expect(engines).toHaveLength(2);
    expect(engines[1].alive).toBe(0);
    expect(notices).toEqual([expect.stringContaining("the GPU was lost")]);
  });

  test("computes no step again that was finished", async () => {
    const surviving = await load();
    await draw(surviving, (call) => {
      if (call === "unet 2") engines[0].failures.unetAndFeature = lost;
    });
    expect(engines[1].calls.filter((call) => call === "unetAndFeature")).toHaveLength(1);
    expect(engines[1].calls).not.toContain("zeroResiduals");
  });

  test("while two calls wait for it is replaced once", async () => {
    const surviving = await load();
    const context = await surviving.textEncoder(Int32Array.of(3));
    const zeros = await surviving.zeroResiduals();
    engines[0].unet = async () => Promise.reject(lost());
    const calls = [1, 2].map(() => surviving.unet(sample, 9, context, zeros));
    expect(await Promise.all(calls)).toEqual([Float32Array.of(3.5), Float32Array.of(3.5)]);
    expect(engines).toHaveLength(2);
    expect(engines[1].calls).toEqual(["textEncoder", "zeroResiduals", "unet", "unet"]);
  });

  test("while the model loads gets a second try", async () => {
    loadFailures = [lost()];
    await load();
    expect(plans).toHaveLength(2);
  });

  test("twice in a minute stops, and the next call tries again", async () => {
    const surviving = await load();
    engines[0].failures.vaeDecoder = lost;
    await surviving.vaeDecoder(sample);
    engines[1].failures.vaeDecoder = lost;
    await expect(surviving.vaeDecoder(sample)).rejects.toThrow("GPU device: got lost: gone");
    expect(engines).toHaveLength(2);
    expect(await surviving.vaeDecoder(sample)).toEqual(sample);
    expect(engines).toHaveLength(3);
  });

  test("again after a minute is survived again", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const surviving = await load();
    for (const i of [0, 1, 2]) {
      engines[i].failures.vaeDecoder = lost;
      expect(await surviving.vaeDecoder(sample)).toEqual(sample);
      vi.advanceTimersByTime(61_000);
    }
    expect(engines).toHaveLength(4);
  });

  test("and comes back late is waited for", async () => {
    const surviving = await load();
    engines[0].failures.vaeDecoder = lost;
    loadFailures = [noAdapter(), noAdapter()];
    expect(await surviving.vaeDecoder(sample)).toEqual(sample);
  });

  test("for good is told, and the next call tries again", async () => {
    const surviving = await load();
    engines[0].failures.vaeDecoder = lost;
    loadFailures = [noAdapter(), noAdapter(), noAdapter()];
    await expect(surviving.vaeDecoder(sample)).rejects.toThrow("no adapter");
    expect(await surviving.vaeDecoder(sample)).toEqual(sample);
  });

  test("makes components ready on the next device that pictures needed on the first", async () => {
    const surviving = await load();
    await surviving.require(["vae_encoder"]);
    engines[0].failures.vaeDecoder = lost;
    await surviving.vaeDecoder(sample);
    expect(engines[1].required).toEqual(["vae_encoder"]);
  });

  test("adds to the work that is counted", async () => {
    const surviving = await load();
    engines[0].failures.vaeDecoder = lost;
    await surviving.vaeDecoder(sample);
    expect(surviving.stats().dispatches).toBe(2);
  });

  test("after unload is nobody's loss", async () => {
    const surviving = await load();
    surviving.unload();
    engines[0].failures.vaeDecoder = lost;
    await expect(surviving.vaeDecoder(sample)).rejects.toThrow("lost");
    expect(engines).toHaveLength(1);
  });
});

test("no adapter at the first visit is not waited for", async () => {
  loadFailures = [noAdapter()];
  await expect(load()).rejects.toThrow("no adapter");
  expect(plans).toHaveLength(1);
});

describe("a GPU that is full", () => {
  test("in the middle of a picture goes on with less memory, and once only", async () => {
    const surviving = await load();
    engines[0].failures.vaeDecoder = full;
    expect(await surviving.vaeDecoder(sample)).toEqual(sample);
    expect(plans.map(({ memory }) => memory)).toEqual(["auto", "reduced"]);
    engines[1].failures.vaeDecoder = full;
    await expect(surviving.vaeDecoder(sample)).rejects.toThrow("GPU memory");
  });

  test("is told with what it had and what is wanted", () => {
    const error = new MemoryFullError({ name: "reduced", ...MEMORY.reduced, peak_bytes: 2.2e9 }, 1.3e9);
    expect(error.message).toMatch(/^GPU memory: got less than 1.3 GB, wanted 2.2 GB for the model; close other tabs/);
  });
});

test("another failure is not tried again", async () => {
  const surviving = await load();
  engines[0].failures.vaeDecoder = () => new Error("a trap");
  await expect(surviving.vaeDecoder(sample)).rejects.toThrow("a trap");
  expect(engines).toHaveLength(1);
});

test("another dtype is loaded once, and the device before is given back", async () => {
  const surviving = await load();
  expect(await surviving.useDtype("float32")).toBe(true);
  expect(await surviving.useDtype("float32")).toBe(false);
  expect(surviving.loaded.chosen.opened.library.dtype).toBe("float32");
  expect(engines[0].unload).toHaveBeenCalledOnce();
  expect(engines).toHaveLength(2);
});

test("an abort while another device is loaded ends the call, and the next one loads it", async () => {
  const surviving = await load();
  engines[0].failures.vaeDecoder = lost;
  loadFailures = [new DOMException("cancelled", "AbortError") as never];
  await expect(surviving.vaeDecoder(sample)).rejects.toMatchObject({ name: "AbortError" });
  expect(await surviving.vaeDecoder(sample)).toEqual(sample);
});
