/** What visitors do. Each scenario returns facts, which the Python tests judge. */

import { join } from "node:path";
import { serveSite } from "../../web/browser/serve_site.mjs";
import { drawWith } from "./draw_with.mjs";
import { spoilManifest } from "./manifest_faults.mjs";
import { publishNext, waitForVersion } from "./next_version.mjs";
import { Visitor } from "./visitor.mjs";

export * from "./accessibility_scenarios.mjs";
export * from "./every_control_scenario.mjs";
export * from "./fault_scenarios.mjs";
export * from "./model_scenarios.mjs";
export * from "./picture_scenarios.mjs";
export * from "./studio_scenarios.mjs";

/**
 * @typedef {object} Stage
 * @property {Visitor} visitor
 * @property {import("playwright-core").Browser} browser
 * @property {Awaited<ReturnType<typeof import("../../web/browser/serve_site.mjs").serveSite>>} host
 * @property {any} options from the test
 */

/** Open the page, draw a ring, write a prompt, press Generate, save the picture and the outline. @param {Stage} stage */
export async function drawARing({ visitor, host, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  const requestsBefore = host.requests.length;
  const { x, y, radius } = options.ring;
  await visitor.drag([x, y], [x + radius, y]);
  await visitor.writePrompt(options.prompt);
  await visitor.set("Seed", String(options.seed));
  await visitor.set("Steps", String(options.steps));
  const previews = visitor.page.evaluate(countPreviews);
  const end = await visitor.generate();
  return {
    end,
    previews: await previews,
    messages: await visitor.messages(),
    picture: await visitor.save("Download PNG"),
    outline: await visitor.save("Save"),
    requestsAfterLoading: host.requests.slice(requestsBefore),
  };
}

/** In the page: how many different previews are shown until the picture is there. */
function countPreviews() {
  return new Promise((resolve) => {
    const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector("#picture"));
    const seen = new Set();
    const look = () => {
      if (canvas.ariaLabel === "Preview") seen.add(canvas.toDataURL());
      if (/^(Done|Stopped)/.test(document.querySelector("[role=status]")?.textContent ?? "")) resolve(seen.size);
      else requestAnimationFrame(look);
    };
    look();
  });
}

/** A picture and a mistake on a phone, where not all of the page is in sight. @param {Stage} stage */
export async function drawOnAPhone({ visitor }) {
  const { page } = visitor;
  const seen = signal();
  await page.route("**/params/*.bin", async (route) => {
    await seen.promise;
    await route.continue();
  });
  await page.setViewportSize({ width: 390, height: 844 });
  await visitor.open();
  const inSight = (/** @type {string} */ selector) =>
    page.locator(selector).evaluate(async (element) => {
      const settled = new Promise((resolve) => document.addEventListener("scrollend", resolve, { once: true }));
      await Promise.race([settled, new Promise((resolve) => setTimeout(resolve, 1000))]);
      const { top, bottom } = element.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    });
  await visitor.waitFor("Loading");
  const opening = (await inSight("#progress")) && (await inSight("#status"));
  await visitor.press("Generate");
  const pressed = (await inSight("#picture")) && (await inSight("#progress")) && (await inSight("#status"));
  const cancel = page.locator("#cancel-in-sight");
  const cancelling = (await cancel.isVisible()) && (await inSight("#cancel-in-sight"));
  await cancel.click();
  const cancelled = await visitor.waitFor("Cancelled");
  seen.resolve();
  await visitor.press("Generate");
  await visitor.waitFor("Done");
  const picture = (await inSight("#picture")) && (await inSight("#status"));
  await visitor.set("Steps", "0");
  await visitor.generate();
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  return { opening, pressed, cancelling, cancelled, picture, message: await inSight(".message"), width };
}

/** Save GPU memory: chosen in the address, then taken back in the settings. @param {Stage} stage */
export async function saveMemory({ visitor, host }) {
  const { page } = visitor;
  const about = () => page.textContent("#about");
  const choice = page.getByLabel("GPU memory");
  host.url += "?memory=reduced";
  await visitor.open();
  await visitor.waitFor("Ready");
  const reduced = { about: await about(), end: await visitor.generate(), image: await picturePixels(page) };
  const prices = await choice.locator("option").allTextContents();
  await page.getByText("Settings").click();
  await choice.selectOption("resident");
  const resident = { end: await visitor.generate(), about: await about(), image: await picturePixels(page) };
  return { reduced, resident, prices };
}

/** @param {import("playwright-core").Page} page */
function picturePixels(page) {
  return page.evaluate(() => /** @type {HTMLCanvasElement} */ (document.querySelector("#picture")).toDataURL());
}

/** The page with a model that is not the bundled one, and takes gigabytes. @param {Stage} stage */
export async function openAnotherModel({ visitor, host }) {
  spoilManifest(host, ({ memory, libraries }) => {
    memory[libraries[0].file].resident.peak_bytes = 3.1e9;
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  const { page } = visitor;
  return {
    title: await page.textContent("h1"),
    prompt: await page.inputValue("#prompt"),
    end: await visitor.generate(),
    label: await page.getAttribute("#picture", "aria-label"),
    colors: await page.isVisible("#colors"),
    memory: await openSettings(page),
  };
}

/** Open the settings; returns whether GPU memory is among them. @param {import("playwright-core").Page} page */
async function openSettings(page) {
  await page.getByText("Settings").click();
  return page.getByLabel("GPU memory").isVisible();
}

/** Brush over the left half of a photo and have it repainted; before that, without a photo. @param {Stage} stage */
export async function repaintAPhoto({ visitor, options }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  const title = await page.textContent("h1");
  await visitor.press("Generate");
  const withoutPhoto = await visitor.waitForMessage();
  const text = { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") };
  await visitor.choosePicture(text, "Open photo…");
  await page.getByText("notes.txt").waitFor();
  const wrongFile = await visitor.messages();
  await visitor.choosePicture({ ...options.photo, buffer: Buffer.from(options.photo.base64, "base64") }, "Open photo…");
  const photo = page.getByRole("application", { name: "Picture to repaint" });
  await photo.and(page.getByLabel("nothing brushed over")).waitFor();
  await page.getByLabel("Size", { exact: true }).fill("0.3");
  for (const x of options.strokes) await visitor.dragOn("Picture to repaint", [x, 0], [x, 1]);
  const brushed = await photo.getAttribute("aria-label");
  await visitor.press("All");
  await page.keyboard.press("Control+z"); // of the photo, which changed last, and not of the outline
  await visitor.writePrompt(options.prompt);
  await visitor.set("Seed", String(options.seed));
  await page.getByLabel("Custom").check({ force: true });
  await visitor.set("Counts until", "0.5");
  const end = await visitor.generate();
  const messages = await visitor.messages();
  const [picture, outline] = [await visitor.save("Download PNG"), await visitor.save("Save")];
  await visitor.press("Repaint it");
  const again = await photo.getAttribute("aria-label");
  await visitor.press("Trace edges");
  const board = await page.getByRole("application", { name: "Drawing board" }).getAttribute("aria-label");
  return { title, withoutPhoto, wrongFile, brushed, end, messages, picture, outline, again, board };
}

/** Use every way to make an outline, and save each. @param {Stage} stage */
export async function outlineInEveryWay({ visitor, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  const { page } = visitor;
  /** @type {Record<string, string>} */
  const outlines = {};
  const save = async (/** @type {string} */ name) => {
    outlines[name] = await visitor.save("Save", `${name}.png`);
  };
  await page.getByLabel("Pencil").check({ force: true });
  await visitor.drag([0.25, 0.25], [0.75, 0.25], [0.75, 0.75]);
  await visitor.drag([0.75, 0.75], [0.25, 0.25]);
  await save("pencil");
  await page.getByLabel("Pencil").press("ArrowRight"); // the line
  await page.getByLabel("Line", { exact: true }).press("ArrowRight"); // the eraser
  await visitor.drag([0.5, 0], [0.5, 0.5]);
  await save("erased");
  await page.keyboard.press("Control+z");
  await save("not erased");
  await visitor.press("Clear");
  await save("cleared");
  await page.getByLabel("Ring", { exact: true }).check({ force: true });
  await visitor.drag([0.4, 0.5], [0.6, 0.5]);
  await save("sample");
  const board = page.getByRole("application", { name: "Drawing board" });
  for (const key of ["ArrowRight", "ArrowRight", "ArrowDown", "+"]) await board.press(key);
  await save("moved");
  await visitor.choosePicture({ ...options.picture, buffer: Buffer.from(options.picture.base64, "base64") });
  await page.getByLabel("Invert").check();
  await save("inverted");
  await page.getByLabel("Annotator").selectOption("canny");
  await page.getByLabel("Invert").uncheck();
  await save("edges");
  await page.getByLabel("Eraser", { exact: true }).check({ force: true });
  await visitor.drag([0.25, 0], [0.25, 1]);
  await save("edges erased");
  for (const _ of ["eraser", "invert", "edges", "invert", "open"]) await visitor.press("Undo");
  await save("undone");
  const toolsAfterUndo = await page.getByLabel("Annotator").isVisible();
  await page.keyboard.press("Control+z"); // all four keys at once
  await save("keys undone");
  while (await page.getByRole("button", { name: "Undo" }).isEnabled()) await visitor.press("Undo");
  await save("first");
  return { outlines, toolsAfterUndo };
}

/** Choose colours by their swatches. @param {Stage} stage */
export async function chooseColors({ visitor, host }) {
  spoilManifest(host, (manifest) => (manifest.model.name = "circles")); // the model that has colours
  await visitor.open();
  await visitor.waitFor("Ready"); // the board takes the model's shape: what lies below it moves
  const prompt = visitor.page.getByRole("textbox", { name: "Prompt", exact: true });
  const radio = (/** @type {string} */ row, /** @type {string} */ color) =>
    visitor.page.getByRole("group", { name: row }).getByRole("radio", { name: color, exact: true });
  await radio("Circle", "red").check();
  const afterCircle = await prompt.inputValue();
  await radio("Background", "white").check();
  const afterBackground = await prompt.inputValue();
  await prompt.fill("a red circle on white");
  const checkedByOtherText = await visitor.page.locator("#colors input:checked").count();
  await prompt.fill("gold circle with navy background");
  const checkedByPrompt = await radio("Circle", "gold").isChecked();
  const memory = await openSettings(visitor.page);
  return { afterCircle, afterBackground, checkedByOtherText, checkedByPrompt, memory };
}

/** The page as the visitor finds it where the engine cannot be loaded. @param {Stage} stage */
export async function openInVain({ visitor, host, options }) {
  spoilManifest(host, (manifest) => Object.assign(manifest.libraries[0], options.manifestChanges));
  await visitor.open();
  const messages = await visitor.waitForMessage();
  await visitor.press("Generate"); // the page still answers, with the same message
  await visitor.waitFor("Stopped");
  return { messages, messagesAgain: await visitor.messages(), requests: host.requests };
}

/** The page by a name of the local network: browsers take localhost alone for secure. @param {Stage} stage */
export async function openOverPlainHttp({ visitor, host }) {
  host.url = host.url.replace("127.0.0.1", "lan.test");
  await visitor.open();
  return { messages: await visitor.waitForMessage(), requests: host.requests };
}

/** The page as a file, and in a frame that may run scripts and nothing else. @param {Stage} stage */
export async function openWhereScriptsDoNotStart({ visitor, host }) {
  const { page } = visitor;
  await page.goto(new URL(`file://${host.site}/index.html`).href);
  const asFile = await page.locator("#not-started").innerText();
  await page.goto(host.url);
  await page.evaluate((url) => {
    document.body.innerHTML = `<iframe sandbox="allow-scripts" src="${url}"></iframe>`;
  }, host.url);
  const inFrame = await page.frameLocator("iframe").locator("#not-started").innerText();
  await page.goto(host.url);
  await visitor.waitFor("Ready");
  return { asFile, inFrame, started: await page.locator("#not-started").count() };
}

/** A shard arrives altered; once the host is repaired, Generate loads it and draws. @param {Stage} stage */
export async function meetAnAlteredShard({ visitor, host, options }) {
  host.faults.set("bundle/params/00.bin", flipOneBit);
  await visitor.open();
  const messages = await visitor.waitForMessage();
  host.faults.clear();
  return { messages, end: await draw(visitor, options), messagesAfter: await visitor.messages() };
}

/** The connection is gone before the engine's script is there; then it is back. @param {Stage} stage */
export async function loseTheConnection({ visitor }) {
  const script = "**/worker-*.js";
  await visitor.page.route(script, (route) => route.abort("internetdisconnected"));
  await visitor.open();
  const messages = await visitor.waitForMessage();
  await visitor.page.unroute(script);
  return { messages, end: await visitor.generate(), messagesAfter: await visitor.messages() };
}

/** Load the page with a network, without one, and with one again while two new versions of it are published. @param {Stage} stage */
export async function loadWithoutANetwork({ visitor, host }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.context().setOffline(true);
  const requestsBefore = host.requests.length;
  await page.goto(`${host.url}?memory=auto`);
  await visitor.waitFor("Ready");
  const end = await visitor.generate();
  // Whether there is a newer service worker the browser asks past this network.
  const requests = host.requests.slice(requestsBefore).filter((path) => path !== "offline.js");
  await page.context().setOffline(false);

  const description = () => page.getAttribute("meta[name=description]", "content");
  const entry = publishNext(host, join(visitor.folder, "second"), "second");
  host.faults.set("index.html", 503); // of the first version the host has nothing left
  await page.reload();
  await visitor.waitFor("Ready");
  const kept = { description: await description(), caches: await cacheNames(page) };
  host.faults.clear();
  await page.reload();
  await visitor.waitFor("Ready");
  await waitForVersion(page, "second");
  const newer = { description: await description(), caches: await cacheNames(page) };
  const earlierEntry = await page.evaluate(async (path) => (await fetch(path)).status, entry);
  publishNext(host, join(visitor.folder, "third"), "third");
  await page.reload();
  await visitor.waitFor("Ready");
  await waitForVersion(page, "third");
  const newest = { description: await description(), caches: await cacheNames(page) };
  return { end, requests, kept, newer, earlierEntry, newest, requestsAgain: host.requests.slice(requestsBefore) };
}

/** @param {import("playwright-core").Page} page */
function cacheNames(page) {
  return page.evaluate(() => caches.keys());
}

/** The browser's own copy of a shard goes bad between two visits. @param {Stage} stage */
export async function meetADamagedCache({ visitor, host }) {
  const shard = "bundle/params/00.bin";
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.page.reload();
  await visitor.waitFor("Ready");
  const fetchedInTwoVisits = host.requests.filter((path) => path === shard).length;
  await visitor.page.evaluate(async () => {
    for (const name of await caches.keys()) {
      if (name.includes(" page ")) continue; // not the engine's
      const cache = await caches.open(name);
      for (const request of await cache.keys()) await cache.put(request, new Response("damaged"));
    }
  });
  await visitor.page.reload();
  const status = await visitor.waitFor("Ready", "The model is not loaded");
  return { status, fetchedInTwoVisits, fetchedInThree: host.requests.filter((path) => path === shard).length };
}

/** Cancel after the first step, then draw. @param {Stage} stage */
export async function cancelInTheMiddle({ visitor, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.set("Steps", String(options.steps));
  await visitor.page.evaluate(cancelAtStepOne);
  await visitor.press("Generate");
  const afterCancel = await visitor.waitFor("Cancelled", "Done");
  const messages = await visitor.messages();
  return { afterCancel, messages, statuses: [...visitor.statuses], end: await visitor.generate() };
}

/** In the page: press Cancel at once when the first step is told, quicker than this process could. */
function cancelAtStepOne() {
  const status = /** @type {Element} */ (document.querySelector("[role=status]"));
  const observer = new MutationObserver(() => {
    if (!status.textContent?.startsWith("Step 1 ")) return;
    observer.disconnect();
    /** @type {HTMLButtonElement} */ (document.querySelector("#cancel")).click();
  });
  observer.observe(status, { childList: true, characterData: true, subtree: true });
}

/** A promise, and what keeps it. @returns {{ promise: Promise<void>, resolve: () => void }} */
function signal() {
  let resolve = () => {};
  const promise = new Promise((/** @type {(value: void) => void} */ keep) => {
    resolve = keep;
  });
  return { promise, resolve };
}

/** Cancel while the model loads; it loads on, and the next picture is drawn. @param {Stage} stage */
export async function cancelWhileLoading({ visitor }) {
  const asked = signal();
  const cancelled = signal();
  await visitor.page.route("**/params/*.bin", async (route) => {
    asked.resolve();
    await cancelled.promise; // a small model would be there before anybody can press
    await route.continue();
  });
  await visitor.open();
  await visitor.press("Generate");
  await asked.promise;
  await visitor.press("Cancel");
  await visitor.page.getByRole("button", { name: "Generate" }).waitFor();
  cancelled.resolve();
  return { messages: await visitor.messages(), end: await visitor.generate() };
}

/** Wrong input first, then right input in the same page. @param {Stage} stage */
export async function correctAMistake({ visitor, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  for (const [name, value] of Object.entries(options.wrong)) await visitor.set(name, value);
  const end = await visitor.generate();
  const messages = await visitor.messages();
  for (const [name, value] of Object.entries(options.right)) await visitor.set(name, value);
  return { end, messages, endAfter: await visitor.generate(), messagesAfter: await visitor.messages() };
}

/** Choose a file as control image, and draw. @param {Stage} stage */
export async function chooseAPicture({ visitor, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  const { name, mimeType, base64 } = options.file;
  await visitor.choosePicture({ name, mimeType, buffer: Buffer.from(base64, "base64") });
  await visitor.page.waitForTimeout(300); // the file is decoded
  const messages = await visitor.messages();
  return { messages, end: await visitor.generate(), messagesAfter: await visitor.messages() };
}

/** Write a prompt, and draw. @param {Stage} stage */
export async function writeAPrompt({ visitor, options }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.writePrompt(options.prompt);
  return { end: await visitor.generate(), messages: await visitor.messages() };
}

/** The GPU's process dies between two pictures, and once more within the minute. @param {Stage} stage */
export async function loseTheDevice({ visitor, browser }) {
  await visitor.open();
  await visitor.waitFor("Ready");
  const session = await browser.newBrowserCDPSession();
  const ends = [];
  const messages = [];
  for (const crashes of [true, true, false]) {
    if (crashes) await session.send("Browser.crashGpuProcess").catch(() => {}); // it may be past answering
    ends.push(await visitor.generate());
    messages.push(await visitor.messages());
  }
  return { ends, messages };
}

/**
 * A script without worker draws one picture again and again, while the GPU's process dies: as the model loads, while kernels
 * compile, after the first step, in the middle, and before the decoder. @param {Stage} stage
 */
export async function surviveLosses({ visitor, browser, host, options }) {
  const session = await browser.newBrowserCDPSession();
  await visitor.page.exposeFunction("crash", () => session.send("Browser.crashGpuProcess").catch(() => {}));
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async (places) => {
    const now = performance.now.bind(performance);
    let minutes = 0;
    performance.now = () => now() + 61_000 * minutes; // each loss has a minute of its own
    const crash = () => {
      minutes++;
      void (/** @type {any} */ (window).crash());
      for (const end = now() + 1000; now() < end; ); // this thread waits, so that no work is done meanwhile
    };
    const compile = GPUDevice.prototype.createComputePipelineAsync;
    GPUDevice.prototype.createComputePipelineAsync = async function (descriptor) {
      await new Promise((resolve) => setTimeout(resolve, 50)); // a picture waits for its kernels
      return compile.call(this, descriptor);
    };
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/engine.js", location.href).href));
    /** @type {Record<string, { image: number[], steps: number, notices: string[] }>} */
    const drawn = {};
    for (const place of ["nowhere", ...places]) {
      /** @type {string[]} */
      const notices = [];
      const onNotice = (/** @type {string} */ notice) => notices.push(notice);
      let phaseToCrash = { load: "download", kernels: "compile" }[/** @type {string} */ (place)];
      const onProgress = (/** @type {any} */ { phase }) => {
        if (phase !== phaseToCrash) return;
        phaseToCrash = undefined;
        crash();
      };
      const engine = await createEngine({ bundleUrl: "./bundle/", onProgress, onNotice });
      const { width, height } = engine.info.manifest.model;
      let steps = 0;
      const onStep = (/** @type {any} */ { index }) => {
        steps++;
        if (index === place) crash();
      };
      const request = { prompt: "gold", seed: 3, numInferenceSteps: 4, controlImage: new ImageData(width, height) };
      const image = await engine.generate(request, { onStep, onNotice, onProgress });
      await engine.unload();
      drawn[place] = { image: [...image.data], steps, notices };
    }
    return { drawn };
  }, options.places);
}

/** Another site's script loads the engine and makes a picture, as web/README.md shows. @param {Stage} stage */
export async function useTheEngine({ visitor, host, options }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async ({ width, height, seed }) => {
    const { createEngine, encodePng } = await import(
      /** @type {any} */ (new URL("./engine/index.js", location.href).href)
    );
    const phases = new Set();
    /** @type {number[][]} */
    const steps = [];
    const onProgress = (/** @type {any} */ { phase }) => phases.add(phase);
    const engine = await createEngine({ bundleUrl: "./bundle/", onProgress });
    const image = await engine.generate(
      { prompt: "gold", controlImage: new ImageData(width, height), seed },
      { onStep: (/** @type {any} */ step) => steps.push([step.index, step.preview().width]) },
    );
    const png = await encodePng(image, image.metadata);
    await engine.unload();
    const refused = await engine.generate({ prompt: "gold", controlImage: image }).catch(String);
    const size = [image.width, image.height, image.data.length];
    return { phases: [...phases], steps, size, settings: image.settings, pngBytes: png.size, refused };
  }, options);
}

/** The same picture on every device of `options.devices`, and which libraries each fetched. @param {Stage} stage */
export async function drawOnEachDevice({ visitor, host, options }) {
  const { page } = visitor;
  await page.goto(host.url);
  /** @type {any[]} */
  const drawn = [];
  for (const device of options.devices) {
    const before = host.requests.length;
    const facts = await page.evaluate(drawWith, { device, request: options.request });
    drawn.push({ ...facts, libraries: host.requests.slice(before).filter((path) => path.endsWith(".wasm")) });
  }
  return { drawn };
}

/** Draw with the element on a page that a bundler built, while the page's long tasks are noted. @param {Stage} stage */
export async function useTheElement({ visitor, host, options }) {
  const { page } = visitor;
  await page.addInitScript(() => {
    /** @type {number[]} */
    const tasks = [];
    Object.assign(window, { tasks });
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({
      type: "longtask",
      buffered: true,
    });
  });
  await page.goto(host.url);
  const element = page.locator("control-net");
  await element.getByRole("button", { name: "Generate" }).click(); // without a bundle's address
  await element.getByText("bundleUrl").waitFor();
  const mistake = await element.getByRole("status").textContent();
  await element.evaluate((it) => it.setAttribute("bundle", "./bundle/"));
  const board = element.locator("canvas").first();
  const { x, y, width, height } = /** @type {any} */ (await board.boundingBox());
  await page.mouse.move(x + width / 4, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x + (3 * width) / 4, y + height / 2, { steps: 4 });
  await page.mouse.up();
  const pixel = (/** @type {number} */ at) =>
    board.evaluate((canvas, place) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
      return context?.getImageData(place * width, height / 2, 1, 1).data[0];
    }, at);
  const line = [await pixel(0.5), await pixel(0.9)];
  await element.getByRole("textbox").fill(options.prompt);
  await element.getByRole("button", { name: "Generate" }).click();
  const drawn = await page.evaluate(() => /** @type {any} */ (window).drawn);
  const shown = await element
    .locator("canvas")
    .last()
    .evaluate((canvas) => [.../** @type {any} */ (canvas).getContext("2d").getImageData(0, 0, 2, 1).data]);
  const longTasks = await page.evaluate(() => /** @type {any} */ (window).tasks);
  await element.evaluate((it) => it.remove());
  const abandoned = await page.evaluate(async () => {
    /** @type {string[]} */
    const sent = [];
    const { postMessage, terminate } = Worker.prototype;
    Worker.prototype.postMessage = function (message, /** @type {any} */ transfer) {
      sent.push(message.kind);
      postMessage.call(this, message, transfer);
    };
    const ended = new Promise((resolve) => {
      Worker.prototype.terminate = function () {
        terminate.call(this);
        resolve(sent);
      };
    });
    const other = document.createElement("control-net");
    other.setAttribute("bundle", "./bundle/");
    other.toggleAttribute("eager", true);
    document.body.append(other);
    other.remove(); // while it loads
    return ended;
  });
  return { mistake, line, drawn, shown, longTasks, abandoned };
}

/** Change the element's attributes while it is on the page. @param {Stage} stage */
export async function changeTheElement({ visitor, host }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async () => {
    let running = 0;
    const { terminate } = Worker.prototype;
    window.Worker = class extends Worker {
      constructor(/** @type {any} */ ...options) {
        super(.../** @type {[string]} */ (options));
        running++;
      }
    };
    Worker.prototype.terminate = function () {
      terminate.call(this);
      running--;
    };
    const element = /** @type {any} */ (document.querySelector("control-net"));
    const told = (/** @type {string} */ name) =>
      new Promise((resolve) => element.addEventListener(`controlnet-${name}`, resolve, { once: true }));
    const field = element.shadowRoot.querySelector("input");
    const prompts = [field.value];
    element.setAttribute("bundle", "./bundle/");
    const isIdle = running === 0;
    let ready = told("ready");
    element.toggleAttribute("eager", true);
    await ready;
    field.value = "what a visitor has typed";
    element.setAttribute("prompt", "teal");
    prompts.push(field.value);
    ready = told("ready");
    const ended = element.generate().catch((/** @type {any} */ error) => error.name);
    element.setAttribute("bundle", "./bundle/?again");
    await ready;
    const { settings } = await element.generate();
    return { prompts, isIdle, ended: await ended, running, drawn: settings.prompt };
  });
}

/** A page whose engine and bundle are on another host. @param {Stage} stage */
export async function useAForeignEngine({ visitor, host, options }) {
  const foreign = await serveSite({ site: options.engine, bundle: options.engineBundle, cors: true });
  try {
    await visitor.page.goto(host.url);
    return await visitor.page.evaluate(async (base) => {
      const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", base).href));
      try {
        const engine = await createEngine({ bundleUrl: new URL("./bundle/manifest.json?token=7", base) });
        const { width, height } = engine.info.manifest.model;
        const image = await engine.generate({ prompt: "gold", controlImage: new ImageData(width, height) });
        await engine.unload();
        return { size: [image.width, image.height] };
      } catch (error) {
        return { error: String(error) };
      }
    }, foreign.url);
  } finally {
    foreign.close();
  }
}

/** Another site's script draws with one engine; pictures are given as numbers. @param {Stage} stage */
export async function drawWithTheEngine({ visitor, host, options }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async ({ requests }) => {
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", location.href).href));
    /** @type {(value: any) => any} */
    const withPixels = (value) => {
      if (Array.isArray(value)) return value.map(withPixels);
      return value?.data ? new ImageData(Uint8ClampedArray.from(value.data), value.width) : value;
    };
    const engine = await createEngine({ bundleUrl: "./bundle/" });
    const pictures = [];
    for (const request of requests) {
      const entries = Object.entries(request).map(([name, value]) => [name, withPixels(value)]);
      pictures.push([...(await engine.generate(Object.fromEntries(entries))).data]);
    }
    await engine.unload();
    return { pictures };
  }, options);
}

/** What is fetched when: at first one ControlNet of two, then both, once after a change of mind. @param {Stage} stage */
export async function loadOnFirstUse({ visitor, host, options }) {
  /** @type {Record<string, string[]>} */
  const requests = {};
  let seen = 0;
  await visitor.page.exposeFunction("note", (/** @type {string} */ name) => {
    requests[name] = host.requests.slice(seen).map((path) => path.replace(/^\//, ""));
    seen = host.requests.length;
  });
  await visitor.page.goto(host.url);
  const facts = await visitor.page.evaluate(async ({ images }) => {
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", location.href).href));
    const note = /** @type {any} */ (window).note;
    const [first, second] = images.map(
      (/** @type {any} */ { data, width }) => new ImageData(Uint8ClampedArray.from(data), width),
    );
    const engine = await createEngine({ bundleUrl: "./bundle/" });
    await note("load");
    await engine.generate({ prompt: "gold", controlImage: first, controlnets: ["lines"] });
    await note("the first");
    /** @type {any[]} */
    const progress = [];
    const both = { prompt: "gold", controlImage: [first, second] };
    const abort = new AbortController();
    const aborted = engine.generate(both, { signal: abort.signal });
    abort.abort();
    const error = await aborted.catch((/** @type {any} */ reason) => `${reason.name}: ${reason.message}`);
    await note("aborted");
    await engine.generate(both, { onProgress: (/** @type {any} */ done) => progress.push(done) });
    await note("both");
    await engine.generate(both);
    await note("both again");
    await engine.unload();
    return { progress, error };
  }, options);
  return { ...facts, requests };
}

/** Several pictures in one call. @param {Stage} stage */
export async function drawSeveral({ visitor, host, options }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async ({ request }) => {
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", location.href).href));
    const { data, width } = request.controlImage;
    const engine = await createEngine({ bundleUrl: "./bundle/" });
    /** @type {any[]} */
    const finished = [];
    const pictures = await engine.generateAll(
      { ...request, controlImage: new ImageData(Uint8ClampedArray.from(data), width) },
      { onImage: (/** @type {any} */ image) => finished.push(image.settings) },
    );
    await engine.unload();
    return { finished, pictures: pictures.map((/** @type {any} */ image) => [...image.data]) };
  }, options);
}

/**
 * A script without worker makes a picture in each mode, while every buffer that is made or destroyed is counted. Its first
 * engine also draws `requests`: another one would compile every kernel anew. @param {Stage} stage
 */
export async function countGpuMemory({ visitor, host, options }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async ({ modes, requests = [], ...request }) => {
    let live = 0;
    let peak = 0;
    const { createBuffer } = GPUDevice.prototype;
    const { destroy } = GPUBuffer.prototype;
    const destroyed = new WeakSet();
    GPUDevice.prototype.createBuffer = function (descriptor) {
      const buffer = createBuffer.call(this, descriptor);
      live += buffer.size;
      peak = Math.max(peak, live);
      return buffer;
    };
    GPUBuffer.prototype.destroy = function () {
      if (!destroyed.has(this)) live -= this.size;
      destroyed.add(this);
      return destroy.call(this);
    };
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/engine.js", location.href).href));
    /** @type {Record<string, any>} */
    const facts = {};
    /** @type {number[][]} */
    const pictures = [];
    for (const memory of modes) {
      const engine = await createEngine({ bundleUrl: "./bundle/", memory });
      const { width, height } = engine.info.manifest.model;
      const controlImage = new ImageData(width, height);
      const loaded = live;
      peak = live;
      const image = await engine.generate({ ...request, controlImage });
      const drawn = { loaded, peak, planned: engine.info.memory.peak_bytes, after: live, image: [...image.data] };
      for (const more of requests.splice(0)) {
        const controlImage = more.controlImage.map(
          (/** @type {any} */ { data, width }) => new ImageData(Uint8ClampedArray.from(data), width),
        );
        pictures.push([...(await engine.generate({ ...more, controlImage })).data]);
      }
      await engine.unload();
      facts[memory] = { ...drawn, unloaded: live };
    }
    return { ...facts, pictures };
  }, options);
}

/**
 * A script without worker makes picture after picture. GPU memory is told after each, and the heap after those that `heapAfter`
 * lists. @param {Stage} stage
 */
export async function drawManyInARow({ visitor, host, options }) {
  const { page } = visitor;
  await page.goto(host.url);
  const session = await page.context().newCDPSession(page);
  await page.evaluate(async () => {
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/engine.js", location.href).href));
    Object.assign(window, { engine: await createEngine({ bundleUrl: "./bundle/", device: "gpu" }) });
  });
  const gpuBytes = [];
  const heaps = [];
  for (const count of options.heapAfter) {
    gpuBytes.push(
      ...(await page.evaluate(
        async ({ from, to }) => {
          const { engine } = /** @type {any} */ (window);
          const { width, height } = engine.info.manifest.model;
          const bytes = [];
          for (let seed = from; seed < to; seed++) {
            const controlImage = new ImageData(width, height);
            await engine.generate({ prompt: "gold", controlImage, seed, numInferenceSteps: 1 });
            bytes.push((await engine.stats()).gpuBytes);
          }
          return bytes;
        },
        { from: gpuBytes.length, to: count },
      )),
    );
    heaps.push(await measureHeap(session));
  }
  return { gpuBytes, heaps };
}

/**
 * The bytes that are used of V8's heap after its garbage is collected, and what they are: data, or code, of which V8 makes more
 * for what runs often. @param {import("playwright-core").CDPSession} session
 */
async function measureHeap(session) {
  for (let round = 0; round < 3; round++) await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  let text = "";
  const add = (/** @type {{ chunk: string }} */ { chunk }) => {
    text += chunk;
  };
  session.on("HeapProfiler.addHeapSnapshotChunk", add);
  await session.send("HeapProfiler.takeHeapSnapshot", { reportProgress: false });
  session.off("HeapProfiler.addHeapSnapshotChunk", add);
  const { snapshot, nodes } = JSON.parse(text);
  const { node_fields: fields, node_types: types } = snapshot.meta;
  const [type, size] = [fields.indexOf("type"), fields.indexOf("self_size")];
  const bytes = { code: 0, data: 0 };
  for (let node = 0; node < nodes.length; node += fields.length) {
    const kind = types[type][nodes[node + type]];
    if (kind !== "native") bytes[kind === "code" ? "code" : "data"] += nodes[node + size]; // native: the browser's, not V8's
  }
  return { used: usedSize, ...bytes };
}

/** @param {Visitor} visitor @param {any} options */
async function draw(visitor, options) {
  if (options.steps !== undefined) await visitor.set("Steps", String(options.steps));
  return visitor.generate();
}

/** @param {Buffer} content */
function flipOneBit(content) {
  const altered = Buffer.from(content);
  altered[10] ^= 1;
  return altered;
}
