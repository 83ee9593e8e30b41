/** Errors and notices on the page. */

import { UserError } from "../worker";

export class Messages {
  constructor(private readonly container: HTMLElement) {}

  clear(): void {
    this.container.replaceChildren();
  }

  /** Show a change that was made to the inputs. */
  notice(text: string): void {
    this.add("notice", [paragraph(capitalise(text))]);
  }

  /** Show what is wrong and what to do. For a bug of the page, show the technical text, which helps in a report. */
  error(error: unknown): void {
    if (error instanceof UserError) {
      const fact = paragraph(`got ${error.got}, wanted ${error.wanted}.`);
      fact.prepend(strong(`${capitalise(error.subject)}: `));
      this.add("error", [fact, paragraph(`${capitalise(error.remedy)}.`)]);
      return;
    }
    console.error(error);
    const text = error instanceof Error ? error.message : String(error);
    const fact = paragraph(text);
    fact.prepend(strong("The page failed: "));
    this.add("error", [fact, paragraph("Press Generate to try again. If it fails again, please report this text.")]);
  }

  private add(kind: "notice" | "error", content: HTMLElement[]): void {
    const message = document.createElement("div");
    message.className = `message ${kind}`;
    message.append(...content);
    this.container.append(message);
    if (kind !== "error") return;
    scrollTo({ top: scrollY, behavior: "instant" }); // stops a scroll to the picture that is under way
    message.scrollIntoView({ block: "nearest" });
  }
}

function paragraph(text: string): HTMLElement {
  const element = document.createElement("p");
  element.textContent = text;
  return element;
}

function strong(text: string): HTMLElement {
  const element = document.createElement("strong");
  element.textContent = text;
  return element;
}

/** Turn "steps" into "Steps". Addresses, and names such as maxBufferSize, do not change. */
function capitalise(text: string): string {
  return /^(?!\w+:\/\/)[a-z][a-z ]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}
