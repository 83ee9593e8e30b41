/** What visitors do with results, settings and models, each in one visit of the page. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

/** @typedef {import("./scenarios.mjs").Stage} Stage */

/**
 * Draw two pictures, open one, reload, follow a link, drop the PNG file, speak German. All requests are recorded.
 *
 * @param {Stage} stage
 */
export async function keepAndShare({ visitor, host }) {
  const { page } = visitor;
  /** @type {string[]} */
  const foreign = [];
  page.on("request", (request) => {
    const isOurs = [host.url, "blob:", "data:"].some((start) => request.url().startsWith(start));
    if (!isOurs) foreign.push(request.url());
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  const paints = [await firstPaintMs(page)];
  await page.waitForFunction(() => navigator.serviceWorker.ready.then(() => true));
  const requestsBefore = host.requests.length;
  await visitor.set("Steps", "4");
  await visitor.set("Seed", "41");
  await visitor.set("Pictures", "2");
  const end = await visitor.generate();
  await page.locator(".thumbnails button").nth(1).waitFor();
  const drawn = await gallery(page);
  await page.locator(".thumbnails button").first().click();
  const dialog = page.locator(".picture-dialog");
  const facts = await dialog.locator(".facts").innerText();
  await dialog.getByRole("button", { name: "Compare" }).click();
  const line = dialog.getByRole("slider");
  await line.press("ArrowRight");
  const compared = await line.inputValue();
  const png = join(visitor.folder, "kept.png");
  const download = page.waitForEvent("download");
  await dialog.getByRole("button", { name: "Download PNG" }).click();
  await (await download).saveAs(png);
  const closeGround = await dialog
    .getByRole("button", { name: "Close" })
    .evaluate((button) => getComputedStyle(button).backgroundColor);
  const dismissed = [await clickBeside(page, dialog)];
  await page.locator(".thumbnails button").first().click();
  await dialog.getByRole("button", { name: "Use again" }).click();
  const usedAgain = await page.getByLabel("Seed", { exact: true }).inputValue();
  const models = page.getByRole("button", { name: /^Model:/ });
  await models.click();
  const address = page.getByLabel("Address of a bundle");
  await address.fill("./half/writ");
  dismissed.push(await clickBeside(page, page.locator("dialog.models")));
  await models.click();
  const written = await address.inputValue();
  await page.keyboard.press("Escape");
  await visitor.set("Seed", "5");
  await visitor.writePrompt("red");
  await page.evaluate(() => {
    navigator.clipboard.writeText = async (text) => void Object.assign(window, { copied: text });
  });
  await page.getByRole("button", { name: "Copy link" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const link = await page.evaluate(() => String(/** @type {any} */ (window).copied));
  const addresses = [page.url()];
  const requestsAfterLoading = host.requests.slice(requestsBefore);

  await page.goto(`${host.url}?again`);
  await visitor.waitFor("Ready");
  paints.push(await firstPaintMs(page));
  const reloaded = { pictures: await gallery(page), prompt: await page.inputValue("#form .prompt input") };
  await visitor.writePrompt("something else");
  await dropFile(page, readFileSync(png));
  await visitor.waitForMessage();
  const dropped = { prompt: await page.inputValue("#form .prompt input"), messages: await visitor.messages() };
  await page.getByLabel("Language").selectOption("de");
  const german = {
    lang: await page.getAttribute("html", "lang"),
    button: await page.locator("#generate").innerText(),
    title: await page.title(),
  };
  await page.getByLabel("Sprache").selectOption("en");

  await page.goto(link);
  await visitor.waitFor("Ready");
  paints.push(await firstPaintMs(page));
  addresses.push(page.url());
  const linked = {
    addresses,
    prompt: await page.inputValue("#form .prompt input"),
    hash: new URL(link).hash,
    sent: host.requests.filter((path) => path.includes("red")),
  };
  return {
    firstPaintsMs: paints,
    end,
    drawn,
    facts,
    compared,
    png,
    closeGround,
    dismissed,
    written,
    usedAgain,
    reloaded,
    dropped,
    german,
    linked,
    foreign,
    requestsAfterLoading,
  };
}

/**
 * On a narrow German phone, open a picture and lay the other over it: the dialog's size as it opens and when its picture has
 * loaded, and what can be seen at a time.
 *
 * @param {Stage} stage
 */
export async function comparePicturesOnAPhone({ visitor }) {
  const { page } = visitor;
  await page.setViewportSize({ width: 320, height: 480 });
  await page.addInitScript(() => {
    const { showModal } = HTMLDialogElement.prototype;
    HTMLDialogElement.prototype.showModal = function () {
      showModal.call(this);
      Object.assign(window, { opened: this.scrollHeight, isLoaded: this.querySelector("img")?.complete });
    };
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.set("Pictures", "2");
  await visitor.generate();
  await page.locator(".thumbnails button").nth(1).waitFor();
  await page.getByLabel("Language").selectOption("de");
  await page.locator(".thumbnails button").first().click();
  const dialog = page.locator(".picture-dialog");
  await page.waitForFunction(
    () => /** @type {any} */ (document.querySelector(".picture-dialog img"))?.naturalWidth > 0,
  );
  const { opened, isLoaded } = await page.evaluate(() => {
    const { opened, isLoaded } = /** @type {any} */ (window);
    return { opened, isLoaded };
  });
  const sizes = [opened, await dialog.evaluate(({ scrollHeight }) => scrollHeight)];
  const compare = dialog.getByRole("button", { name: "Vergleichen" });
  await compare.click();
  await page.waitForFunction(() =>
    [...document.querySelectorAll(".compare img")].every((image) => /** @type {any} */ (image).naturalWidth > 0),
  );
  sizes.push(await dialog.evaluate(({ scrollHeight }) => scrollHeight));
  const inSight = await page.evaluate(() =>
    [".compare", ".compare input", "[aria-pressed=true]"].map((part) => {
      const { top, bottom } = /** @type {Element} */ (
        document.querySelector(`.picture-dialog ${part}`)
      ).getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    }),
  );
  const colors = await dialog
    .getByRole("button", { name: /Vergleichen|Anderer Startwert/ })
    .evaluateAll((buttons) => buttons.map((button) => getComputedStyle(button).color));
  return { isLoaded, sizes, inSight, colors };
}

/** Draw on a page below the root of an ordinary server, which sends no headers of ours. @param {Stage} stage */
export async function drawBelowTheRoot({ visitor, host, options }) {
  host.url = options.url;
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  const end = await visitor.generate();
  await page.evaluate(() => navigator.serviceWorker.ready);
  const before = await page.evaluate(() => crossOriginIsolated);
  await page.reload();
  await visitor.waitFor("Ready");
  const again = await visitor.generate();
  const models = page.getByRole("button", { name: /^Model:/ });
  const button = await models.innerText();
  await models.click();
  await page.locator(".model p").nth(1).getByText("on this machine").waitFor();
  const list = await page.locator(".model").allInnerTexts();
  return { end, again, before, isolated: await page.evaluate(() => crossOriginIsolated), button, list };
}

/** Where the browser keeps no pictures, the page says so and draws. @param {Stage} stage */
export async function drawInAPrivateWindow({ visitor }) {
  const { page } = visitor;
  await page.addInitScript(() => {
    IDBFactory.prototype.open = () => {
      throw new DOMException("denied", "SecurityError");
    };
    Storage.prototype.setItem = () => {
      throw new DOMException("denied", "SecurityError");
    };
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  const end = await visitor.generate();
  await page.locator(".thumbnails img").waitFor();
  return { end, messages: await visitor.messages(), pictures: await gallery(page) };
}

/** @param {import("playwright-core").Page} page */
function firstPaintMs(page) {
  return page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
}

/** @param {import("playwright-core").Page} page */
async function gallery(page) {
  await page.locator(".thumbnails img").first().waitFor();
  return page.locator(".thumbnails img").count();
}

/**
 * Press in a dialog and release beside it, as who marks text; click at its very edge; then click beside it.
 *
 * @param {import("playwright-core").Page} page
 * @param {import("playwright-core").Locator} dialog
 */
async function clickBeside(page, dialog) {
  const box = /** @type {{ x: number, y: number, height: number }} */ (await dialog.boundingBox());
  const [left, middle] = [box.x, box.y + box.height / 2];
  await page.mouse.move(left + 4, middle);
  await page.mouse.down();
  await page.mouse.move(left / 2, middle, { steps: 3 });
  await page.mouse.up();
  await page.mouse.click(left + 4, middle);
  const open = [await dialog.isVisible()];
  await page.mouse.click(left / 2, middle);
  await dialog.waitFor({ state: "hidden" });
  open.push(await dialog.isVisible());
  return { open, focused: await page.evaluate(() => document.activeElement?.ariaHasPopup) };
}

/** Drop a PNG file on the page. @param {import("playwright-core").Page} page @param {Buffer} content */
async function dropFile(page, content) {
  const data = await page.evaluateHandle((base64) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    return transfer;
  }, content.toString("base64"));
  await page.dispatchEvent("main", "drop", { dataTransfer: data });
}
