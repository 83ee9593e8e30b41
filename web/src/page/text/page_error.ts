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
    /** Says what the mistake is about. */
    readonly about: () => string,
    readonly complaint: () => Complaint,
  ) {
    const { got, wanted, remedy } = complaint();
    super(about(), got, wanted, remedy);
  }
}
