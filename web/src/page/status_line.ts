/** The line that shows the page's current work, and its progress bar. */

export class StatusLine {
  constructor(
    private readonly container: HTMLElement,
    private readonly text: HTMLElement,
    private readonly bar: HTMLProgressElement,
  ) {}

  /** Show progress from 0 to 1, by default the fraction that is shown already. On a phone the line stays in sight. */
  progress(text: string, fraction = this.bar.value): void {
    this.container.classList.add("busy");
    this.text.textContent = text;
    this.bar.value = fraction;
  }

  /** Show the result of finished work. */
  result(text: string, fraction = 0): void {
    this.progress(text, fraction);
    this.container.classList.remove("busy");
  }
}
