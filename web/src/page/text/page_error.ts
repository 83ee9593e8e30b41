/** A mistake that the page has found, in the visitor's language. */

import { UserError } from "../../worker";

/** What was found, what would be right, and what helps. */
export interface Complaint {
  readonly got: string;
  readonly wanted: string;
  readonly remedy: string;
}

/** The engine's errors are in English; these are in the page's language already. */
export class PageError extends UserError {
  constructor(subject: string, { got, wanted, remedy }: Complaint) {
    super(subject, got, wanted, remedy);
  }
}
