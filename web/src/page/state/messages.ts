/** What the page has to say: notices of changes, and errors with what to do. */

import { type Signal, signal } from "@preact/signals";
import { UserError } from "../../worker";
import { t } from "../text";

/** Where on the page a message is said: below the request, at the photo, in the list of models, or at a control unit, by its number. */
export type Place = "request" | "photo" | "models" | number;

export interface Message {
  readonly kind: "notice" | "error";
  readonly place: Place;
  /** What the message is about. */
  readonly subject?: string;
  /** One paragraph each. */
  readonly text: readonly string[];
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

/** Turn "steps" into "Steps". Addresses, and names such as maxBufferSize, do not change. */
function capitalise(text: string): string {
  return /^(?!\w+:\/\/)[a-z][a-z ]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}
