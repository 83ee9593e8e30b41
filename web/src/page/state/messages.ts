/** What the page has to say: notices of changes, and errors with what to do. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { type Notice, UserError } from "../../worker";
import { t } from "../text";
import { noticeText, subjectText } from "../text/engine_text";
import { type Complaint, PageError } from "../text/page_error";

/** Where on the page a message is said: below the request, at the photo, in the list of models, or at a control unit, by its number. */
export type Place = "request" | "photo" | "models" | number;

/** What a message says, in one language. */
interface Said {
  /** What the message is about. */
  readonly subject?: string;
  /** One paragraph each. */
  readonly text: readonly string[];
  /** The engine's own words, in English, where `text` says the same in the page's language. */
  readonly original?: string;
}

/** What was told, and where. */
interface Told {
  /** Tells messages apart, in any language. */
  readonly id: number;
  readonly kind: "notice" | "error";
  readonly place: Place;
}

export interface Message extends Told, Said {}

export class Messages {
  private readonly told: Signal<readonly (Told & { readonly say: () => Said })[]> = signal([]);
  /** In the page's language: when another one is chosen, it is all said in that. */
  readonly list: ReadonlySignal<readonly Message[]> = computed(() =>
    this.told.value.map(({ say, ...told }) => ({ ...told, ...say() })),
  );
  private nextId = 1;

  clear(): void {
    this.told.value = [];
  }

  /** Take away what was said at one place. */
  clearAt(place: Place): void {
    this.told.value = this.told.peek().filter((message) => message.place !== place);
  }

  /**
   * Tell a change that was made to the inputs: a notice of the engine, a sentence that only it has, or one in the page's
   * language. `subject` names what a notice is about, if the page knows that better.
   */
  notice(notice: Notice | string | (() => string), place: Place = "request", subject?: () => string): void {
    const say = () => {
      if (typeof notice === "string") return notice;
      return typeof notice === "function" ? notice() : noticeText(notice, subject?.());
    };
    this.add("notice", place, () => ({ text: [capitalise(say())] }));
  }

  /** Tell what is wrong and what to do. For a bug of the page, tell the technical text, which helps in a report. */
  error(error: unknown, place: Place = "request"): void {
    if (!(error instanceof UserError)) console.error(error);
    this.add("error", place, () => sayError(error));
  }

  private add(kind: Told["kind"], place: Place, say: () => Said): void {
    this.told.value = [...this.told.peek(), { id: this.nextId++, kind, place, say }];
  }
}

function sayError(error: unknown): Said {
  if (error instanceof PageError) {
    const { about } = error;
    return sayComplaint(typeof about === "string" ? about : capitalise(about()), error.complaint());
  }
  if (error instanceof UserError) return translationOf(error) ?? sayComplaint(subjectOf(error), error);
  const fact = error instanceof Error ? error.message : String(error);
  return { subject: t.value.pageFailed, text: [fact, t.value.pageFailedRemedy] };
}

function sayComplaint(subject: string, { got, wanted, remedy }: Complaint): Said {
  return { subject, text: [t.value.gotWanted(got, wanted), `${capitalise(remedy)}.`] };
}

/** What an error of the engine is about, as a message begins: in the page's language, if it has a text there. */
function subjectOf({ subject }: UserError): string {
  return isFile(subject) ? subject : capitalise(subjectText(subject) ?? subject);
}

/** The engine's error in another language than its own; undefined where there is none. */
function translationOf(error: UserError): Said | undefined {
  const texts: Partial<Record<string, string>> = t.value.errorsByCode ?? {};
  const text = texts[error.code];
  if (text === undefined) return undefined;
  const { subject } = error;
  const original = wordsOf(error);
  if (subjectText(subject) !== undefined) return { subject: subjectOf(error), text: [text], original };
  // A file, an address or a name is the same in every language; anything else stays with the engine's words.
  if (isFile(subject) || !subject.includes(" ")) return { subject, text: [text], original };
  return { text: [text], original: `${capitalise(subject)}: ${original}` };
}

function wordsOf({ got, wanted, remedy }: UserError): string {
  return `got ${got}, wanted ${wanted}. ${capitalise(remedy)}.`;
}

/** Whether a subject of the engine is a file, or a place in one. */
function isFile(subject: string): boolean {
  return /\/|\.\p{L}/u.test(subject);
}

/** Turn "steps" into "Steps", "öffnen" into "Öffnen". Addresses, and names such as maxBufferSize, do not change. */
function capitalise(text: string): string {
  return /^(?!\w+:\/\/)\p{Ll}+(?=[\s,:;'’-]|\.?$)/u.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}
