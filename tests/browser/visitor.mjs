/** A visitor of the page: what a person can see and do there, and nothing else. */

import { join } from "node:path";

export const PATIENCE_MS = 800_000; // a whole picture on a software adapter that shares its cores

export class Visitor {
  /** Every text that the status line showed, in order. @type {string[]} */
  statuses = [];
  /** Errors on the console and uncaught ones. @type {string[]} */
  complaints = [];

  /**
   * @param {import("playwright-core").Page} page
   * @param {{ url: string, requests: string[] }} host
   * @param {string} folder where downloads go
   */
  constructor(page, host, folder) {
    this.page = page;
    this.host = host;
    this.folder = folder;
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") this.complaints.push(message.text());
    });
  }

  /** Open the page and begin to read its status line. */
  async open() {
    await this.page.exposeFunction("noteStatus", (/** @type {string} */ text) => this.statuses.push(text));
    await this.page.addInitScript(() => {
      let last = "";
      const note = () => {
        const text = document.querySelector("[role=status]")?.textContent ?? "";
        if (text === last) return;
        last = text;
        /** @type {any} */ (window).noteStatus(text);
      };
      new MutationObserver(note).observe(document, { childList: true, characterData: true, subtree: true });
    });
    await this.page.goto(this.host.url);
  }

  /** Wait until the status line begins with one of `beginnings`; returns it. @param {string[]} beginnings */
  async waitFor(...beginnings) {
    const handle = await this.page.waitForFunction(
      (wanted) => {
        const text = document.querySelector("[role=status]")?.textContent ?? "";
        return wanted.some((beginning) => text.startsWith(beginning)) && text;
      },
      beginnings,
      { timeout: PATIENCE_MS },
    );
    return String(await handle.jsonValue());
  }

  /** Drag on the drawing board. @param {[number, number][]} points as in dragOn */
  async drag(...points) {
    await this.dragOn("Drawing board", ...points);
  }

  /**
   * Drag on the board whose name begins so; numbers are fractions of its width and height.
   *
   * @param {string} name
   * @param {[number, number][]} points
   */
  async dragOn(name, ...points) {
    const board = this.page.getByRole("application", { name });
    await board.scrollIntoViewIfNeeded();
    const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (await board.boundingBox());
    const [first, ...others] = points.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
    await this.page.mouse.move(first[0], first[1]);
    await this.page.mouse.down();
    for (const [x, y] of others) await this.page.mouse.move(x, y, { steps: 8 });
    await this.page.mouse.up();
  }

  /** @param {string} text */
  async writePrompt(text) {
    await this.page.getByRole("textbox", { name: "Prompt", exact: true }).fill(text);
  }

  /** @param {string} name @param {string} value */
  async set(name, value) {
    const field = this.page.getByLabel(name, { exact: true });
    if (!(await field.isVisible())) await this.page.getByText("Settings").click();
    await field.fill(value);
  }

  /** @param {string} button */
  async press(button) {
    await this.page.getByRole("button", { name: button, exact: true }).click();
  }

  /** Give the page a file as picture. @param {{ name: string, mimeType: string, buffer: Buffer }} file */
  async choosePicture(file, button = "Open…") {
    const chooser = this.page.waitForEvent("filechooser");
    await this.press(button);
    await (await chooser).setFiles(file);
  }

  /** Press a button that saves a file; returns where it was saved. @param {string} button @param {string} [name] */
  async save(button, name) {
    const download = this.page.waitForEvent("download");
    await this.press(button);
    const saved = await download;
    const path = join(this.folder, name ?? saved.suggestedFilename());
    await saved.saveAs(path);
    return path;
  }

  /** Errors and notices on the page. */
  async messages() {
    return this.page.locator(".message").allInnerTexts();
  }

  /** Wait for a message on the page; returns all of them. */
  async waitForMessage() {
    await this.page.locator(".message").first().waitFor({ timeout: PATIENCE_MS });
    return this.messages();
  }

  /** Press Generate and wait for the end, good or bad; returns the status. */
  async generate() {
    await this.press("Generate");
    return this.waitFor("Done", "Stopped", "Cancelled");
  }
}
