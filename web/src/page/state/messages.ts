/** What the page has to say: notices of changes, and errors with what to do. */

import { type Signal, signal } from "@preact/signals";
import { type Notice, UserError } from "../../worker";
import { t } from "../text";
import { noticeText, subjectText } from "../text/engine_text";
import { PageError } from "../text/page_error";

/** Where on the page a message is said: below the request, at the photo, in the list of models, or at a control unit, by its number. */
export type Place = "request" | "photo" | "models" | number;

export interface Message {
  readonly kind: "notice" | "error";
  readonly place: Place;
  /** What the message is about. */
  readonly subject?: string;
  /** One paragraph each. */
  readonly text: readonly string[];
  /** The engine's own words, in English, where `text` says the same in the page's language. */
  readonly original?: string;
}

export class Messages {
  readonly list: Signal<readonly Message[]> = signal([]);

  clear(): void {
    this.list.value = [];
  }

  /** Take away what was said at one place. */
  clearAt(place: Place): void {
    this.list.value = this.list.peek().filter((message) => message.place !== place);
  }

  /** Tell a change that was made to the inputs: a notice of the engine, or a sentence in the page's language. */
  notice(told: Notice | string, place: Place = "request"): void {
    const text = typeof told === "string" ? told : noticeText(told);
    this.add({ kind: "notice", place, text: [capitalise(text)] });
  }

  /** Tell what is wrong and what to do. For a bug of the page, tell the technical text, which helps in a report. */
  error(error: unknown, place: Place = "request"): void {
    const isForeign = error instanceof UserError && !(error instanceof PageError);
    const translated = isForeign ? translationOf(error) : undefined;
    if (translated !== undefined) {
      this.add({ kind: "error", place, ...translated });
      return;
    }
    if (error instanceof UserError) {
      const fact = t.value.gotWanted(error.got, error.wanted);
      const text = [fact, `${capitalise(error.remedy)}.`];
      const subject = capitalise((isForeign && subjectText(error.subject)) || error.subject);
      this.add({ kind: "error", place, subject, text });
      return;
    }
    console.error(error);
    const fact = error instanceof Error ? error.message : String(error);
    this.add({ kind: "error", place, subject: t.value.pageFailed, text: [fact, t.value.pageFailedRemedy] });
  }

  private add(message: Message): void {
    this.list.value = [...this.list.peek(), message];
  }
}

/** The engine's error in another language than its own; undefined where there is none. */
function translationOf(error: UserError): Pick<Message, "subject" | "text" | "original"> | undefined {
  const texts: Partial<Record<string, string>> = t.value.errorsByCode ?? {};
  const text = texts[error.code];
  if (text === undefined) return undefined;
  const name = subjectText(error.subject);
  if (name !== undefined) return { subject: capitalise(name), text: [text], original: wordsOf(error) };
  // A file, an address or a name is the same in every language; anything else stays with the engine's words.
  if (!error.subject.includes(" ")) return { subject: error.subject, text: [text], original: wordsOf(error) };
  return { text: [text], original: `${capitalise(error.subject)}: ${wordsOf(error)}` };
}

function wordsOf({ got, wanted, remedy }: UserError): string {
  return `got ${got}, wanted ${wanted}. ${capitalise(remedy)}.`;
}

/** Turn "steps" into "Steps". Addresses, and names such as maxBufferSize, do not change. */
function capitalise(text: string): string {
  return /^(?!\w+:\/\/)[a-z][a-z ]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}
