/** How pictures come into the page: from the camera, from files, and painted by classes. */

import { spoilManifest } from "./manifest_faults.mjs";

/** @typedef {import("./scenarios.mjs").Stage} Stage */
/** @typedef {import("playwright-core").Page} Page */

/** Take a still for the control unit and one for the photo, and leave the camera without one. @param {Stage} stage */
export async function takeStills({ visitor }) {
  const { page } = visitor;
  await watchCameras(page);
  await visitor.open();
  await visitor.waitFor("Ready");
  const board = page.getByRole("application", { name: "Drawing board" });
  const switchedOff = () =>
    page.waitForFunction(() => /** @type {any} */ (window).camerasOn() === 0, null, { timeout: 2000 });
  const take = async (/** @type {number} */ place) => {
    await page.getByRole("button", { name: "Camera…" }).nth(place).click();
    await page.getByRole("button", { name: "Take the picture" }).click();
    await page.locator("dialog.camera").waitFor({ state: "detached" });
    await switchedOff();
  };
  await take(0);
  await page.waitForFunction(() => document.querySelector("canvas[id^=board]")?.ariaLabel?.includes("picture"));
  const control = await board.getAttribute("aria-label");
  await page.getByRole("radio", { name: "A picture", exact: true }).check({ force: true });
  await take(0); // the photo's card comes first
  const photo = await page.getByRole("img", { name: "Picture to start from" }).getAttribute("aria-label");
  await page.getByRole("button", { name: "Camera…" }).first().click();
  await page.getByRole("button", { name: "Take the picture" }).and(page.locator(":enabled")).waitFor();
  const onMeanwhile = await page.evaluate(() => /** @type {any} */ (window).camerasOn());
  await page.keyboard.press("Escape");
  await page.locator("dialog.camera").waitFor({ state: "detached" });
  await switchedOff();
  const focused = await page.evaluate(() => document.activeElement?.textContent);
  const end = await visitor.generate();
  return { control, photo, onMeanwhile, focused, end };
}

/** Say how much of a picture changes, and leave it open again. @param {Stage} stage */
export async function sayHowMuchChanges({ visitor }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  const begin = (/** @type {string} */ name) => page.getByRole("radio", { name, exact: true }).check({ force: true });
  const change = page.getByRole("spinbutton", { name: "Change", exact: true });
  /** @type {Record<string, string>} */
  const shown = {};
  await begin("A picture");
  shown.first = await change.inputValue();
  await change.press("ArrowUp");
  shown.stepped = await change.inputValue();
  await change.fill("");
  shown.emptied = await change.inputValue();
  await change.press("Tab");
  shown.left = await change.inputValue();
  await begin("A part of a picture");
  shown.repainted = await change.inputValue();
  await change.fill("0.6");
  await begin("A picture");
  shown.chosen = await change.inputValue();
  return { shown };
}

/** Ask for a camera that is refused, or that is not there; then draw. @param {Stage} stage */
export async function askForACameraInVain({ visitor, options }) {
  const { page } = visitor;
  if (options.insecure) await page.addInitScript(() => Reflect.deleteProperty(Navigator.prototype, "mediaDevices"));
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.press("Camera…");
  await visitor.waitForMessage();
  const isAtTheUnit = await page.locator(".unit .message").isVisible();
  const dialogs = await page.locator("dialog[open]").count();
  return { messages: await visitor.messages(), isAtTheUnit, dialogs, end: await visitor.generate() };
}

/** Pick, drop and paste a picture of 200 megapixels. @param {Stage} stage */
export async function openAHugePicture({ visitor, options }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  const buffer = Buffer.from(options.picture.base64, "base64");
  const board = page.getByRole("application", { name: "Drawing board" });
  const before = await board.getAttribute("aria-label");
  const decoded = page.evaluate(() => {
    const { createImageBitmap } = window;
    Object.assign(window, { decodes: 0 });
    window.createImageBitmap = /** @type {any} */ (
      (/** @type {any} */ ...given) => {
        /** @type {any} */ (window).decodes++;
        return /** @type {any} */ (createImageBitmap)(...given);
      }
    );
  });
  await decoded;
  /** @type {Record<string, string[]>} */
  const messages = {};
  await visitor.choosePicture({ ...options.picture, name: "picked.png", buffer });
  messages.picked = await visitor.waitForMessage();
  for (const [how, type] of /** @type {const} */ ([
    ["dropped", "drop"],
    ["pasted", "paste"],
  ])) {
    await page.evaluate(
      ({ type, base64, name, mimeType }) => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        data.items.add(new File([bytes], name, { type: mimeType }));
        const event =
          type === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
        document.querySelector(".unit")?.dispatchEvent(event);
      },
      { type, ...options.picture, name: `${how}.png` },
    );
    await page.getByText(`${how}.png`).waitFor();
    messages[how] = await visitor.messages();
  }
  const decodes = await page.evaluate(() => /** @type {any} */ (window).decodes);
  const after = await board.getAttribute("aria-label");
  return { before, after, messages, decodes, end: await visitor.generate() };
}

/** Paint a map of classes with pointer and keys: a background, an area, a line. @param {Stage} stage */
export async function paintClasses({ visitor, host }) {
  const { page } = visitor;
  spoilManifest(host, (manifest) => {
    manifest.controlnets[0].kind = "seg";
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  const board = page.getByRole("application", { name: "Drawing board" });
  const atFirst = await board.getAttribute("aria-label");
  const tools = await page.locator(".unit .tools .segment-row label").allInnerTexts();
  await visitor.press("Fill the board"); // sky
  const find = page.getByRole("searchbox", { name: "Find a class" });
  await find.fill("gra");
  const found = await page.locator(".class-list label").allInnerTexts();
  await page.getByRole("radio", { name: "grass" }).press("Space");
  await visitor.drag([0, 0.5], [1, 0.5], [1, 1], [0, 1]);
  const drawn = await visitor.save("Save", "drawn.png");
  await find.fill("house");
  await page.getByRole("radio", { name: "house" }).check();
  await page.getByRole("radio", { name: "Pencil" }).check({ force: true });
  for (const key of [" ", "Shift+ArrowRight", "Shift+ArrowRight", " "]) await board.press(key);
  const byKeys = await visitor.save("Save", "by_keys.png");
  await find.fill("nothing of this name");
  const none = await page.locator(".class-list p").innerText();
  await visitor.press("Sample 2");
  const sample = await visitor.save("Save", "sample.png");
  return { atFirst, tools, found, none, drawn, byKeys, sample, end: await visitor.generate() };
}

/** Draw with a pen that presses lightly and firmly, and with a finger. @param {Stage} stage */
export async function drawWithPenAndFinger({ visitor }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.getByRole("radio", { name: "Pencil" }).check({ force: true });
  const board = page.getByRole("application", { name: "Drawing board" });
  await board.scrollIntoViewIfNeeded();
  const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (await board.boundingBox());
  const devtools = await page.context().newCDPSession(page);
  const places = [0.2, 0.4, 0.6, 0.8].map((part) => ({
    x: box.x + part * box.width,
    y: box.y + box.height / 2,
  }));
  const pen = async (/** @type {number} */ force) => {
    const hold = /** @type {const} */ ({
      button: "left",
      buttons: 1,
      clickCount: 1,
      pointerType: "pen",
      force,
    });
    await devtools.send("Input.dispatchMouseEvent", {
      type: "mousePressed",
      ...places[0],
      ...hold,
    });
    for (const place of places)
      await devtools.send("Input.dispatchMouseEvent", {
        type: "mouseMoved",
        ...place,
        ...hold,
      });
    await devtools.send("Input.dispatchMouseEvent", {
      type: "mouseReleased",
      ...places[3],
      ...hold,
      buttons: 0,
    });
  };
  const finger = async () => {
    await devtools.send("Input.dispatchTouchEvent", {
      type: "touchStart",
      touchPoints: [places[0]],
    });
    for (const place of places)
      await devtools.send("Input.dispatchTouchEvent", {
        type: "touchMove",
        touchPoints: [place],
      });
    await devtools.send("Input.dispatchTouchEvent", {
      type: "touchEnd",
      touchPoints: [],
    });
  };
  const lit = () =>
    board.evaluate((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const pixels = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d")?.getImageData(0, 0, width, height).data;
      let sum = 0;
      for (let at = 0; at < (pixels?.length ?? 0); at += 4) sum += (pixels?.[at] ?? 0) / 255;
      return sum;
    });
  /** @type {Record<string, number>} */
  const light = {};
  for (const [name, draw] of Object.entries({
    lightly: () => pen(0.1),
    firmly: () => pen(0.5),
    finger,
  })) {
    await visitor.press("Clear");
    await draw();
    light[name] = await lit();
  }
  return { light };
}

/** Let a model of the visitor's own, in an ONNX file, make the control image; before it, files that are none. @param {Stage} stage */
export async function annotateByAModel({ visitor, host, options }) {
  const { page } = visitor;
  await visitor.open();
  await visitor.waitFor("Ready");
  const choose = (/** @type {string} */ name, /** @type {string} */ button) =>
    visitor.choosePicture({ ...options[name], buffer: Buffer.from(options[name].base64, "base64") }, button);
  await choose("picture", "Open…");
  await page.getByLabel("Annotator").selectOption("onnx");
  const before = { text: await page.locator(".onnx-name").innerText(), requests: host.requests.filter(isOfOnnx) };
  await choose("picture", "Open a model…");
  const noModel = await visitor.waitForMessage();
  await choose("unfit", "Open a model…");
  await page.getByText("two pictures").waitFor();
  const unfit = await visitor.messages();
  await choose("depth", "Open a model…");
  await page.locator(".onnx-name", { hasText: "depth.onnx" }).waitFor();
  const messages = await visitor.messages();
  await page.getByLabel("It reads").selectOption("unit");
  const depth = await visitor.save("Save", "depth.png");
  await page.getByLabel("Longer side").fill("128");
  const smaller = await visitor.save("Save", "smaller.png");
  await choose("pose", "Open a model…");
  await page.locator(".onnx-name", { hasText: "pose.onnx" }).waitFor();
  const pose = await visitor.save("Save", "pose.png");
  return { before, noModel, unfit, messages, depth, smaller, pose, end: await visitor.generate() };
}

const isOfOnnx = (/** @type {string} */ path) => /onnx|ort-/.test(path);

/** Count the cameras that are on. @param {Page} page */
async function watchCameras(page) {
  await page.addInitScript(() => {
    /** @type {MediaStreamTrack[]} */
    const tracks = [];
    const { getUserMedia } = MediaDevices.prototype;
    MediaDevices.prototype.getUserMedia = async function (constraints) {
      const stream = await getUserMedia.call(this, constraints);
      tracks.push(...stream.getTracks());
      return stream;
    };
    Object.assign(window, { camerasOn: () => tracks.filter(({ readyState }) => readyState === "live").length });
  });
}
