/**
 * The texts that a picture's PNG file carries, and the settings that come back from them.
 *
 * A file has two texts. `parameters` is Stable Diffusion web UI's, which many programs read. `mlc-controlnet` is our own
 * record, exact and complete. Neither is called `prompt`: ComfyUI takes a text of that name for a workflow of its own.
 * Twin: mlc_controlnet/runtime/metadata.py.
 */

import { OPTION_NAMES } from "./constants.ts";
import { UserError } from "./errors.ts";
import { readInfotext, writeInfotext } from "./infotext.ts";
import { type Notice, noticeOf } from "./notices.ts";
import { separated, words } from "./option_text.ts";
import { PARAMETERS, readTexts } from "./png.ts";
import { OPTIONS, type Settings, toRecord } from "./request.ts";

const RECORD = "mlc-controlnet";
/** Options that any text is a value of. */
const FREE_TEXTS = ["prompt", "negativePrompt", "prompt2", "negativePrompt2"];

/** What a PNG file says of how it was made. */
export interface RestoredSettings {
  /** Values by option, as a request takes them; complete only in a file of ours. */
  readonly options: Partial<Settings>;
  /** The model's name; empty if another program made the file. */
  readonly model: string;
  /** Of the bundle that drew the picture; empty if another program made the file. */
  readonly bundleSha256: string;
  /** What could not be read. */
  readonly notices: readonly Notice[];
}

/** The texts of a PNG file. */
export function toMetadata(settings: Settings, model: string, bundleSha256: string): Record<string, string> {
  const record = { ...toRecord(settings), model, bundle_sha256: bundleSha256 };
  return { [PARAMETERS]: writeInfotext(settings, model, bundleSha256), [RECORD]: JSON.stringify(record) };
}

/**
 * Read how a picture was made, from the content of its PNG file. Our own record comes before web UI's text.
 *
 * Throws UserError if it is no PNG file, or one that says nothing of this.
 */
export async function readSettings(data: Uint8Array<ArrayBuffer>, subject = "picture"): Promise<RestoredSettings> {
  const texts = await readTexts(data, subject);
  if (texts[RECORD] !== undefined) return readRecord(texts[RECORD], subject);
  const { options, notices } = readInfotext(texts[PARAMETERS] ?? "");
  if (Object.keys(options).length === 0) {
    const wanted = "a picture that this program or Stable Diffusion web UI has made";
    throw new UserError(subject, "a PNG file without settings", wanted, "pass another file");
  }
  return { options: usable(options, notices), model: "", bundleSha256: "", notices };
}

function readRecord(text: string, subject: string): RestoredSettings {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = null;
  }
  if (!isRecord(parsed)) {
    const got = `a text ${RECORD} that is no record`;
    throw new UserError(subject, got, "the settings of a picture", "pass another file");
  }
  return settingsOfRecord(parsed);
}

/** Read the settings of a record, such as that of a file of ours or of a link. */
export function settingsOfRecord(record: Readonly<Record<string, string>>): RestoredSettings {
  const known = OPTION_NAMES.filter((name) => separated(name, "_") in record);
  const options = Object.fromEntries(known.map((name) => [name, parsedValue(name, record[separated(name, "_")])]));
  const names: string[] = [...known.map((name) => separated(name, "_")), "model", "bundle_sha256"];
  const unknown = Object.keys(record).filter((name) => !names.includes(name));
  const notices = unknown.map((name) => noticeOf("unknown-option", { name: name.replaceAll("_", " ") }));
  const checked = usable(options, notices);
  return { options: checked, model: record.model ?? "", bundleSha256: record.bundle_sha256 ?? "", notices };
}

/** The options that a request may have; each other one becomes a notice. */
function usable(options: Partial<Record<keyof Settings, unknown>>, notices: Notice[]): Partial<Settings> {
  const checked: Record<string, unknown> = {};
  for (const name of OPTION_NAMES) {
    if (options[name] === undefined) continue;
    try {
      checked[name] = OPTIONS[name].check(words(name), options[name]);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      notices.push(noticeOf("unusable-value", { subject: words(name), value: error.got }));
    }
  }
  return checked;
}

/** The value that `toRecord` has written. */
function parsedValue(name: string, text: string): unknown {
  if (FREE_TEXTS.includes(name)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function isRecord(value: unknown): value is Record<string, string> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string")
  );
}
