/** The messages between a page and its worker. Every message has the id of its call. */

import { type ErrorCode, UserError } from "../engine/errors.ts";
import type {
  BatchRequest,
  DeviceChoice,
  EngineInfo,
  GeneratedImage,
  GenerateRequest,
  Image,
  Manifest,
  MemoryChoice,
  Notice,
  Progress,
  Step,
} from "../engine/index.ts";

/** A message from the page. */
export type Call =
  | {
      readonly kind: "create";
      readonly id: number;
      readonly bundleUrl: string;
      readonly device?: DeviceChoice;
      readonly memory?: MemoryChoice;
    }
  | {
      readonly kind: "generate";
      readonly id: number;
      readonly request: GenerateRequest;
      readonly decodesPreviews?: boolean;
    }
  | {
      readonly kind: "generateAll";
      readonly id: number;
      readonly request: BatchRequest;
      readonly decodesPreviews?: boolean;
    }
  | { readonly kind: "stats"; readonly id: number }
  | { readonly kind: "unload"; readonly id: number }
  | { readonly kind: "abort"; readonly id: number };

/** A step with its preview as pixels: a function cannot be sent to another thread. */
export type StepData = Omit<Step, "preview"> & { readonly preview: Image };

/** A message from the worker. A call gets any number of events, then one result or error. */
export type Reply =
  | { readonly kind: "manifest"; readonly id: number; readonly manifest: Manifest }
  | { readonly kind: "progress"; readonly id: number; readonly progress: Progress }
  | { readonly kind: "info"; readonly id: number; readonly info: EngineInfo }
  | { readonly kind: "step"; readonly id: number; readonly step: StepData }
  | { readonly kind: "image"; readonly id: number; readonly image: GeneratedImage }
  | { readonly kind: "notice"; readonly id: number; readonly text: string; readonly notice?: Notice }
  | { readonly kind: "queue"; readonly id: number; readonly ahead: number }
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly error: ErrorData };

/** The interface that a Worker, a worker's scope and a MessagePort share. */
export interface Port<In, Out> {
  postMessage(message: Out, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<In>) => void) | null;
}

/** An error as plain data. Structured cloning would lose its class and its parts. */
export interface ErrorData {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly parts?: readonly [subject: string, got: string, wanted: string, remedy: string, code: ErrorCode];
}

export function packError(error: unknown): ErrorData {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message, stack } = error;
  if (!(error instanceof UserError)) return { name, message, stack };
  const { subject, got, wanted, remedy, code } = error;
  return { name, message, stack, parts: [subject, got, wanted, remedy, code] };
}

export function unpackError({ name, message, stack, parts }: ErrorData): Error {
  if (name === "AbortError") return new DOMException(message, name);
  const error = parts === undefined ? Object.assign(new Error(message), { name }) : new UserError(...parts);
  if (stack !== undefined) error.stack = stack; // the place where it happened, not where it arrived
  return error;
}
