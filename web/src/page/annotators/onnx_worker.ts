/** The worker that has onnxruntime-web: fourteen megabytes, fetched when a visitor opens a model's file. */

import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import * as ort from "onnxruntime-web/wasm";
import type { Image } from "../../worker";
import type { Size } from "../drawing/marks";
import {
  type OnnxInput,
  type OnnxOutput,
  readInput,
  readOutput,
  type Scaling,
  type Tensor,
  toTensor,
} from "./onnx_tensors";
import type { WorkerReply } from "./worker_calls";

ort.env.wasm.wasmPaths = { wasm };
ort.env.wasm.numThreads = 1; // more would need scripts that the page's policy forbids

export type OnnxCall =
  | { readonly open: ArrayBuffer; readonly model: number }
  | { readonly image: Image; readonly model: number; readonly size: Size; readonly scaling: Scaling };

/** What is wrong with a model, for the page to say in its language. */
export type OnnxRefusal = { readonly refused: "file" | "input" | "output"; readonly got: string };
export type OnnxAnswer = OnnxInput | OnnxOutput | OnnxRefusal;

const sessions = new Map<number, { readonly session: ort.InferenceSession; readonly input: OnnxInput }>();

addEventListener("message", async ({ data: call }: MessageEvent<OnnxCall & { id: number }>) => {
  const { id } = call;
  try {
    reply({ id, answer: "open" in call ? await open(call.open, call.model) : await run(call) });
  } catch (error) {
    reply({ id, error: String(error) });
  }
});

async function open(content: ArrayBuffer, model: number): Promise<OnnxAnswer> {
  let session: ort.InferenceSession;
  try {
    session = await ort.InferenceSession.create(new Uint8Array(content), { executionProviders: ["wasm"] });
  } catch (error) {
    return { refused: "file", got: error instanceof Error ? error.message : String(error) };
  }
  const inputs = session.inputMetadata.filter((input) => input.isTensor);
  const input = inputs.length === 1 ? readInput(inputs[0].name, inputs[0].type, inputs[0].shape) : undefined;
  if (input === undefined) {
    await session.release();
    const got = inputs.map(({ name, type, shape }) => `${name}: ${type} [${shape.join(", ")}]`).join("; ");
    return { refused: "input", got };
  }
  sessions.set(model, { session, input });
  return input;
}

async function run({ image, model, size, scaling }: Extract<OnnxCall, { image: Image }>): Promise<OnnxAnswer> {
  const opened = sessions.get(model);
  if (opened === undefined) throw new Error(`no model ${model} is open`);
  const { data, dims } = toTensor(image, opened.input, size, scaling);
  const feeds = { [opened.input.name]: new ort.Tensor(opened.input.type, data, dims) };
  const outputs = await opened.session.run(feeds);
  const shapes: string[] = [];
  for (const name of opened.session.outputNames) {
    const { dims, data } = outputs[name];
    const output = readOutput({ dims, data: data as Tensor["data"] }, image);
    if (output !== undefined) return output;
    shapes.push(`${name}: [${dims.join(", ")}]`);
  }
  return { refused: "output", got: shapes.join("; ") };
}

function reply(message: WorkerReply<OnnxAnswer>): void {
  postMessage(message);
}
