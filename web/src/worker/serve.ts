/** The worker's side: an engine behind a port. */

import { createEngine } from "../engine/create_engine.ts";
import type { ControlNetEngine, EngineInfo, GenerateCallbacks, Image, Step } from "../engine/index.ts";
import { type Call, type Port, packError, type Reply, type StepData } from "./protocol.ts";

/** A call that draws. */
type Drawing = Extract<Call, { request: unknown }>;

/** Answer calls on `port`; `create` makes the engine. */
export function serveEngine(port: Port<Call, Reply>, create: typeof createEngine = createEngine): void {
  let engine: ControlNetEngine | undefined;
  /** The other end has this one. */
  let told: EngineInfo | undefined;
  /** Running calls by id. */
  const running = new Map<number, AbortController>();
  const loaded = () => {
    if (engine === undefined) throw new Error("no engine was created in this worker");
    return engine;
  };

  /** Tell a change of the engine's info, which a call may cause. */
  function tellInfo(id: number): void {
    if (engine === undefined || engine.info === told) return;
    told = engine.info;
    port.postMessage({ kind: "info", id, info: told }, []);
  }

  function reporting({ id, decodesPreviews }: Drawing, signal: AbortSignal): GenerateCallbacks {
    return {
      signal,
      decodesPreviews,
      onStep: (step) => port.postMessage({ kind: "step", id, step: stepData(step) }, []),
      onNotice: (text, notice) => port.postMessage({ kind: "notice", id, text, notice }, []),
      onQueue: (ahead) => port.postMessage({ kind: "queue", id, ahead }, []),
      onProgress: (progress) => port.postMessage({ kind: "progress", id, progress }, []),
    };
  }

  async function answer(call: Exclude<Call, { kind: "abort" }>, signal: AbortSignal): Promise<unknown> {
    const { id } = call;
    switch (call.kind) {
      case "create":
        engine = await create({
          bundleUrl: call.bundleUrl,
          device: call.device,
          memory: call.memory,
          signal,
          onNotice: (text, notice) => port.postMessage({ kind: "notice", id, text, notice }, []),
          onManifest: (manifest) => port.postMessage({ kind: "manifest", id, manifest }, []),
          onProgress: (progress) => port.postMessage({ kind: "progress", id, progress }, []),
        });
        told = engine.info;
        return told;
      case "generate":
        return loaded().generate(call.request, reporting(call, signal));
      case "generateAll":
        await loaded().generateAll(call.request, {
          ...reporting(call, signal),
          onImage: (image) => port.postMessage({ kind: "image", id, image }, [image.data.buffer]),
        });
        return undefined; // all pictures are there
      case "stats":
        return loaded().stats();
      case "unload":
        return engine?.unload();
    }
  }

  port.onmessage = async ({ data: call }) => {
    if (call.kind === "abort") {
      running.get(call.id)?.abort();
      return;
    }
    const controller = new AbortController();
    running.set(call.id, controller);
    try {
      const value = await answer(call, controller.signal).finally(() => tellInfo(call.id));
      port.postMessage({ kind: "result", id: call.id, value }, isImage(value) ? [value.data.buffer] : []);
    } catch (error) {
      port.postMessage({ kind: "error", id: call.id, error: packError(error) }, []);
    } finally {
      running.delete(call.id);
    }
  };
}

function stepData(step: Step): StepData {
  return { ...step, preview: step.preview() };
}

function isImage(value: unknown): value is Image {
  return (value as Image | undefined)?.data instanceof Uint8ClampedArray;
}
