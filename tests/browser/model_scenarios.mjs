/** Models that come from elsewhere, and a new version of the page. */

import { join } from "node:path";
import { spoilManifest } from "./manifest_faults.mjs";
import { publishNext } from "./next_version.mjs";

/** @typedef {import("./scenarios.mjs").Stage} Stage */

/** The first address of a model has nothing, and its mirror has it. @param {Stage} stage */
export async function loadFromAMirror({ visitor, host }) {
  await visitor.page.route("**/models.json", (route) =>
    route.fulfill({
      json: {
        format: 1,
        models: [{ path: "gone/", name: "linear", kinds: ["canny"], mirrors: [`${host.url}bundle/`] }],
      },
    }),
  );
  await visitor.open();
  const end = [await visitor.waitFor("Ready", "The model is not loaded"), await visitor.generate()];
  return {
    end,
    asked: host.requests.filter((path) => path.endsWith("manifest.json")),
    messages: await visitor.messages(),
  };
}

/** Drop a bundle's folder on the list of models, as a file manager would, and draw with it. @param {Stage} stage */
export async function dropAFolder({ visitor, options }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.getByRole("button", { name: /^Model:/ }).click();
  const box = /** @type {{ x: number, y: number }} */ (await page.locator(".own-model").boundingBox());
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files: [options.folder], dragOperationsMask: 1 };
  for (const type of /** @type {const} */ (["dragEnter", "dragOver", "drop"])) {
    await session.send("Input.dispatchDragEvent", { type, x: box.x + 20, y: box.y + 20, data });
  }
  await page.locator(".model").nth(1).getByText("Open now").waitFor();
  const list = await page.locator(".model h3").allInnerTexts();
  await page.keyboard.press("Escape");
  await visitor.waitFor("Ready");
  const end = await visitor.generate();
  await page.reload();
  await visitor.waitFor("Ready");
  await page.getByRole("button", { name: /^Model:/ }).click();
  const kept = await page.locator(".model").nth(1).innerText();
  return { list, end, kept };
}

/** Open a model with a second library, which is larger and needs another GPU, and read what the list says. @param {Stage} stage */
export async function readTheListOfModels({ visitor, host, options }) {
  const { page } = visitor;
  await page.route("**/models.json", (route) => route.fulfill({ body: options.models }));
  spoilManifest(host, ({ libraries, files, memory }) => {
    const [own] = libraries;
    const other = { ...own, file: "linear-float16.wasm", dtype: "float16", required_features: ["shader-f16"] };
    libraries.unshift(other);
    files.push({ path: other.file, bytes: options.libraryBytes, sha256: "0".repeat(64) });
    memory[other.file] = memory[own.file];
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.getByRole("button", { name: /^Model:/ }).click();
  await page.locator(".model").getByText("on this machine").waitFor();
  return { text: await page.locator(".model").innerText(), requests: host.requests };
}

/** A bundle of a newer format, on the English page and on the German one; then the host has one that the page reads. @param {Stage} stage */
export async function meetANewerFormat({ visitor, host }) {
  const { page } = visitor;
  spoilManifest(host, (manifest) => {
    manifest.format_version = 999;
  });
  await visitor.open();
  const english = await visitor.waitForMessage();
  await page.getByLabel("Language").selectOption("de");
  await page.getByRole("button", { name: "Malen", exact: true }).click();
  await visitor.waitFor("Angehalten");
  const german = await visitor.messages();
  await page.getByLabel("Sprache").selectOption("en");
  host.faults.clear();
  return { english, german, end: await visitor.generate() };
}

/** Inpaint without a mask, drop a PNG file of another program, and draw where the browser's storage is full. @param {Stage} stage */
export async function drawWithWhatIsOdd({ visitor, options }) {
  const { page } = visitor;
  await page.addInitScript(() => {
    IDBObjectStore.prototype.add = () => {
      throw new DOMException("no room", "QuotaExceededError");
    };
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.getByRole("radio", { name: "A part of a picture" }).check({ force: true });
  const file = { ...options.foreign, buffer: Buffer.from(options.foreign.base64, "base64") };
  await visitor.choosePicture(file, "Open photo…");
  const withoutAHole = { end: await visitor.generate(), messages: await visitor.messages() };
  const dropped = page.locator("main");
  const data = await page.evaluateHandle(({ base64 }) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], "foreign.png", { type: "image/png" }));
    return transfer;
  }, options.foreign);
  await dropped.dispatchEvent("drop", { dataTransfer: data });
  await page.waitForFunction(() => document.querySelector("canvas[id^=board]")?.ariaLabel?.includes("picture"));
  const foreign = await visitor.messages();
  await page.getByRole("radio", { name: "Nothing" }).check({ force: true });
  const end = await visitor.generate();
  await page.locator(".thumbnails img").first().waitFor();
  return { withoutAHole, foreign, end, gallery: await page.locator(".gallery .message").innerText() };
}

/** A new version is published while the page is open: it is offered, and this one goes on, whole, until it is opened. @param {Stage} stage */
export async function meetANewVersion({ visitor, host }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.evaluate(() => navigator.serviceWorker.ready);
  const description = () => page.getAttribute("meta[name=description]", "content");
  const scripts = () =>
    page.evaluate(() => [...document.scripts].map(({ src }) => src.split("/").at(-1)).filter((name) => name));
  const before = { description: await description(), scripts: await scripts(), offered: await offered(page).count() };
  publishNext(host, join(visitor.folder, "second"), "second");
  await page.evaluate(async () => (await navigator.serviceWorker.ready).update());
  await offered(page).waitFor();
  const meanwhile = { end: await visitor.generate(), scripts: await scripts(), description: await description() };
  await page.getByRole("button", { name: "Open it" }).click();
  await page.waitForFunction(() =>
    document.querySelector("meta[name=description]")?.matches("[content='The second page']"),
  );
  await visitor.waitFor("Ready");
  const after = { end: await visitor.generate(), scripts: await scripts(), offered: await offered(page).count() };
  return { before, meanwhile, after };
}

const offered = (/** @type {import("playwright-core").Page} */ page) => page.locator(".new-version");
