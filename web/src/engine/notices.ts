/**
 * What a call tells besides its result: how its inputs were changed, and what the engine did to go on.
 *
 * Twin: mlc_controlnet/notices.py, with the codes of what a picture's inputs cause.
 */

import { gigabytes } from "./byte_text.ts";

/** The kinds of notices, and the values of each. A `subject` is the picture or the option, as in the errors. */
export interface NoticeValues {
  /** The browser keeps less for this site than the bundle takes: the next visit downloads it again. */
  readonly "no-room": { readonly roomBytes: number; readonly neededBytes: number };
  /** By the browser's hints, the GPU's memory does not hold the model. It is tried all the same. */
  readonly "gpu-looks-small": { readonly estimatedBytes: number; readonly neededBytes: number };
  /** GPU memory was full: the model is loaded again in the reduced mode. */
  readonly "memory-reduced": object;
  /** The GPU went away: the model is loaded again, and the picture goes on. */
  readonly "gpu-lost": object;
  /** Float16 arithmetic gave a picture of one colour, or NaN or infinity: it is drawn again in float32. */
  readonly "drawn-again": { readonly spoilt: "one-colour" | "not-finite" };
  /** A prompt is longer than the model reads; `cutText` is its lost end. */
  readonly "prompt-cut": { readonly subject: string; readonly tokens: number; readonly cutText: string };
  /** An option that nothing reads: guidance is off, the model has it built in, or the sampler is another one. */
  readonly "no-effect": { readonly subject: string; readonly why: "guidance-off" | "guidance-embedded" | "sampler" };
  /** A picture's transparent pixels were composited on black. */
  readonly transparency: { readonly subject: string };
  /**
   * A picture of another size was scaled. `from` and `to` are sizes such as 640x480. The engine scales a picture to cover the
   * model's and crops what stands out, if anything does; `fits` and `stretched` are for pages that do otherwise.
   */
  readonly scaled: {
    readonly subject: string;
    readonly from: string;
    readonly to: string;
    readonly how: "covers" | "cropped" | "fits" | "stretched";
  };
  /** The part around a mask is larger than the model draws: it is drawn smaller and enlarged, and loses detail. */
  readonly "part-enlarged": { readonly subject: string; readonly part: string; readonly drawn: string };
  /** Restored settings have an option that is not known here. */
  readonly "unknown-option": { readonly name: string };
  /** Restored settings have a name, of a sampler or another thing, that is not known here. */
  readonly "unknown-value": { readonly subject: string; readonly value: string };
  /** Restored settings have a value that no request may have. */
  readonly "unusable-value": { readonly subject: string; readonly value: string };
  /** Restored settings have hires fix with an upscaler that is not known here. */
  readonly "unknown-upscaler": { readonly value: string };
}

/** What a notice says: `NoticeValues` has the meaning of each code. */
export type NoticeCode = keyof NoticeValues;

/** One notice. It is plain data, so it can be sent between threads. */
export type Notice = {
  readonly [Code in NoticeCode]: {
    readonly code: Code;
    readonly values: NoticeValues[Code];
    /** A sentence in English. */
    readonly text: string;
  };
}[NoticeCode];

/**
 * Called with a sentence in English, and with what it says as a code and values, for texts in other languages. The engines here
 * always have both; some notices of `serve`, which only Python makes, are a sentence alone.
 */
export type NoticeListener = (text: string, notice?: Notice) => void;

/** The sentences of one language. The compiler refuses it if one is missing. */
export type NoticeTexts = { readonly [Code in NoticeCode]: (values: NoticeValues[Code]) => string };

const SCALED = {
  covers: (to: string) => `scaled to cover ${to}`,
  cropped: (to: string) => `scaled to cover ${to} and cropped around its centre`,
  fits: (to: string) => `scaled to fit into ${to}, with black beside it`,
  stretched: (to: string) => `stretched to ${to}`,
} as const;

const ENGLISH: NoticeTexts = {
  "no-room": ({ roomBytes, neededBytes }) =>
    `the browser has room for ${gigabytes(roomBytes)} of this site's files and the model takes ${gigabytes(neededBytes)}: ` +
    "the next visit downloads it again; free space on the disk, or leave the private window",
  "gpu-looks-small": ({ estimatedBytes, neededBytes }) =>
    `GPU memory: got about ${gigabytes(estimatedBytes)}, by the browser's hints, wanted ${gigabytes(neededBytes)} for the ` +
    "model. It is downloaded and tried all the same; take a bundle with weights of fewer bits if drawing fails.",
  "memory-reduced": () => "GPU memory was full: the model is loaded again, with a part of its weights at a time",
  "gpu-lost": () => "the GPU was lost: the model is loaded again, and the picture goes on after its last step",
  "drawn-again": ({ spoilt }) => {
    const made = spoilt === "one-colour" ? "a picture of one colour" : "numbers that are not finite";
    return `float16 arithmetic of this GPU made ${made}: it is drawn again in float32, which is slower`;
  },
  "prompt-cut": ({ subject, tokens, cutText }) =>
    `${subject}: longer than ${tokens} tokens, this end was cut: “${cutText}”`,
  "no-effect": ({ subject, why }) => {
    const reasons = {
      "guidance-off": "guidance is off",
      "guidance-embedded": "a model that embeds its guidance reads none",
      sampler: "only the samplers ddim and tcd read it",
    };
    return `${subject}: has no effect, ${reasons[why]}`;
  },
  transparency: ({ subject }) => `${subject}: its transparency was composited on black`,
  scaled: ({ subject, from, to, how }) => `${subject}: ${from} was ${SCALED[how](to)}`,
  "part-enlarged": ({ subject, part, drawn }) =>
    `${subject}: the part around the mask, ${part}, is drawn at ${drawn} and enlarged`,
  "unknown-option": ({ name }) => `${name} is not known here and was left out`,
  "unknown-value": ({ subject, value }) => `${subject} ${value} is not known here and was left out`,
  "unusable-value": ({ subject, value }) => `${subject} ${value} cannot be used and was left out`,
  "unknown-upscaler": ({ value }) => `hires upscaler ${value} is not known here: hires fix was left out`,
};

/** Make a notice. */
export function noticeOf<Code extends NoticeCode>(code: Code, values: NoticeValues[Code]): Notice {
  return { code, values, text: ENGLISH[code](values) } as Notice;
}

/** Say a notice in another language than English. */
export function sayNotice(notice: Notice, texts: NoticeTexts): string {
  const say = texts[notice.code] as (values: Notice["values"]) => string;
  return say(notice.values);
}
