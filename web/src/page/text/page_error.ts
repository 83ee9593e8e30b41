/** A mistake that the page has found, in the visitor's language. */

import { UserError } from "../../worker";

/** What was found, what would be right, and what helps. */
export interface Complaint {
  readonly got: string;
  readonly wanted: string;
  readonly remedy: string;
}

/** The engine's errors are in English; these are in the page's language, also after another one is chosen. */
export class PageError extends UserError {
  constructor(
    /** What the mistake is about: a name, such as a file's, which is the same in every language, or what says it in the page's. */
    readonly about: string | (() => string),
    readonly complaint: () => Complaint,
  ) {
    const { got, wanted, remedy } = complaint();
    super(typeof about === "string" ? about : about(), got, wanted, remedy);
  }
}
