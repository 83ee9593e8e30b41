/** What the page has to say: notices of changes, and errors with what to do. */

import { type Signal, signal } from "@preact/signals";
import { UserError } from "../../worker";
import { t } from "../text";
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

  /** Tell a change that was made to the inputs. */
  notice(text: string, place: Place = "request"): void {
    this.add({ kind: "notice", place, text: [capitalise(text)] });
  }

  /** Tell what is wrong and what to do. For a bug of the page, tell the technical text, which helps in a report. */
  error(error: unknown, place: Place = "request"): void {
    const isForeign = error instanceof UserError && !(error instanceof PageError);
    const translated = isForeign ? t.value.errorsByCode[error.code] : undefined;
    if (isForeign && translated !== undefined) {
      const subject = capitalise(error.subject);
      this.add({ kind: "error", place, subject, text: [translated], original: wordsOf(error) });
      return;
    }
    if (error instanceof UserError) {
      const fact = t.value.gotWanted(error.got, error.wanted);
      const text = [fact, `${capitalise(error.remedy)}.`];
      this.add({ kind: "error", place, subject: capitalise(error.subject), text });
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

function wordsOf({ got, wanted, remedy }: UserError): string {
  return `got ${got}, wanted ${wanted}. ${capitalise(remedy)}.`;
}

/** Turn "steps" into "Steps". Addresses, and names such as maxBufferSize, do not change. */
function capitalise(text: string): string {
  return /^(?!\w+:\/\/)[a-z][a-z ]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}
