/** The page as axe judges it, in every state that a visitor can bring it to. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { spoilManifest } from "./manifest_faults.mjs";

/** @typedef {import("./scenarios.mjs").Stage} Stage */

const require = createRequire(new URL("../../web/package.json", import.meta.url));

/** Audit the page at rest, with each dialog, with each part unfolded, and after a result, in light and dark. @param {Stage} stage */
export async function auditThePage({ visitor }) {
  const { page } = visitor;
  await page.emulateMedia({ reducedMotion: "reduce" });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  /** @type {Record<string, string[]>} */
  const violations = {};
  const audit = async (/** @type {string} */ state) => {
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      await page.emulateMedia({ colorScheme });
      violations[`${state}, ${colorScheme}`] = await page.evaluate(async () => {
        const { violations } = await /** @type {any} */ (window).axe.run({ resultTypes: ["violations"] });
        return violations.flatMap((/** @type {any} */ { id, nodes }) =>
          nodes.map((/** @type {any} */ { html, any }) => `${id}: ${html.slice(0, 160)} (${any[0]?.message ?? ""})`),
        );
      });
    }
  };
  const close = () => page.keyboard.press("Escape");
  await audit("at rest");
  await page.getByRole("button", { name: /^Model:/ }).click();
  await audit("models");
  await close();
  await visitor.press("Camera…");
  await page.getByRole("button", { name: "Take the picture" }).and(page.locator(":enabled")).waitFor();
  await audit("camera");
  await visitor.press("Take the picture");
  await page.getByLabel("Annotator").waitFor();
  await page.getByText("Custom").click();
  await page.getByText("Settings").click();
  await page.getByRole("radio", { name: "A part of a picture" }).check({ force: true });
  await page.getByLabel("Only the masked part").check();
  await visitor.press("Generate"); // without a photo
  await visitor.waitForMessage();
  await audit("all unfolded, with an error");
  await page.getByRole("radio", { name: "Nothing" }).check({ force: true });
  await visitor.generate();
  await audit("after a result");
  await page.locator(".thumbnails button").first().click();
  await audit("a picture");
  await page.getByRole("button", { name: "Compare" }).click();
  await audit("two pictures compared");
  return { violations };
}

/** The same of a model of classes, and in German on a phone; then how a 4K screen is used. @param {Stage} stage */
export async function auditClassesOnAPhone({ visitor, host }) {
  const { page } = visitor;
  spoilManifest(host, (manifest) => {
    manifest.controlnets[0].kind = "seg";
  });
  await page.setViewportSize({ width: 360, height: 780 });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.getByLabel("Language").selectOption("de");
  await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  const violations = await page.evaluate(async () => {
    const { violations } = await /** @type {any} */ (window).axe.run({ resultTypes: ["violations"] });
    return violations.map((/** @type {any} */ { id, nodes }) => `${id}: ${nodes[0].html.slice(0, 160)}`);
  });
  const statuses = [await page.getByRole("status").innerText()];
  await page.getByLabel("Sprache").selectOption("en");
  statuses.push(await page.getByRole("status").innerText());
  await page.getByLabel("Language").selectOption("de");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewportSize({ width: 320, height: 640 }); // 1280 pixels at 400 %
  const narrowest = await page.evaluate(() => document.documentElement.scrollWidth);
  const orders = [await outputOrder(page)];
  await page.getByRole("radio", { name: "Einem Bildteil" }).check({ force: true });
  const brushSize = await page.getByRole("slider", { name: "Größe", exact: true }).getAttribute("aria-valuetext");
  await page.getByRole("radio", { name: "Nichts" }).check({ force: true });
  await page.setViewportSize({ width: 844, height: 390 });
  await page.locator(".picture ~ #form").waitFor();
  orders.push(await outputOrder(page));
  const board = await page.getByRole("application").first().boundingBox();
  await page.setViewportSize({ width: 3840, height: 2160 });
  const on4k = await page.evaluate(() => {
    const box = (/** @type {string} */ selector) =>
      /** @type {Element} */ (document.querySelector(selector)).getBoundingClientRect();
    const [main, picture, form] = ["main", ".picture", "#form"].map(box);
    return { share: main.width / innerWidth, isBeside: form.left >= picture.right, bottom: picture.bottom };
  });
  return { violations, statuses, width, narrowest, orders, brushSize, lyingBoard: board?.height, on4k };
}

/** Where the keys go on, from above to below: the parts of the page in their order. @param {import("playwright-core").Page} page */
function outputOrder(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll(".inputs, #form, .picture")].map((part) => ({
      name: part.id || part.classList[part.classList.length - 1],
      top: part.getBoundingClientRect().top,
    })),
  );
}

/**
 * While a picture waits for its model, in German, by the width of the window: the status's share of the progress bar's width,
 * and the lines that its buttons take.
 *
 * @param {Stage} stage
 */
export async function readTheProgress({ visitor }) {
  const { page } = visitor;
  await page.route("**/params/*.bin", () => {}); // never answered
  await visitor.open();
  await page.getByLabel("Language").selectOption("de");
  await page.getByRole("button", { name: "Malen", exact: true }).click();
  await page.locator("#cancel").waitFor();
  /** @type {Record<string, { share: number, lines: number[] }>} */
  const bars = {};
  for (const width of [320, 360, 768, 1024, 1440]) {
    await page.setViewportSize({ width, height: 640 });
    bars[width] = await page.evaluate(() => {
      const lines = (/** @type {Element} */ element) => {
        const range = new Range();
        range.selectNodeContents(element);
        return new Set([...range.getClientRects()].map(({ bottom }) => Math.round(bottom))).size;
      };
      const bar = /** @type {Element} */ (document.querySelector("#progress-bar"));
      const buttons = [...bar.querySelectorAll("button")].filter((button) => button.checkVisibility());
      const [status, row] = ["#status", ".row"].map(
        (part) => /** @type {Element} */ (bar.querySelector(part)).clientWidth,
      );
      return { share: status / row, lines: buttons.map(lines) };
    });
  }
  return { bars };
}

/** What has the focus after each step by keys, and what becomes of an address of a model, wrong and right. @param {Stage} stage */
export async function goOnByKeys({ visitor }) {
  const { page } = visitor;
  /** What has the focus, once what had it is gone or disabled. */
  const focused = async () => {
    await page.waitForFunction(() => document.activeElement?.matches(":enabled"));
    return page.evaluate(() => {
      const element = document.activeElement;
      return element?.closest(".thumbnails") ? "a picture" : element?.ariaLabel || element?.textContent;
    });
  };
  const removePicture = async (/** @type {number} */ left) => {
    await page.locator(".thumbnails button").first().press("Enter");
    await page.getByRole("button", { name: "Remove", exact: true }).press("Enter");
    await page.waitForFunction((count) => document.querySelectorAll(".thumbnails button").length === count, left);
    return focused();
  };
  await visitor.open();
  await visitor.waitFor("Ready");
  await visitor.press("Clear");
  await page.getByRole("button", { name: "Undo", exact: true }).press("Enter");
  await page.waitForFunction(() => /** @type {any} */ (document.querySelector(".undo button"))?.disabled);
  const undone = await focused();
  page.on("dialog", (dialog) => dialog.accept("my way"));
  await visitor.press("Save as preset…");
  await page.getByRole("button", { name: "Remove the preset my way" }).press("Enter");
  await page.getByRole("button", { name: "my way", exact: true }).waitFor({ state: "detached" });
  const presetRemoved = await focused();
  const presets = await savePresetsInTwoTabs(visitor);
  await visitor.set("Pictures", "2");
  await visitor.generate();
  await page.locator(".thumbnails button").nth(1).waitFor();
  const removed = [await removePicture(1), await removePicture(0)];
  await page.getByRole("button", { name: /^Model:/ }).press("Enter");
  const models = await page.locator(".model").count();
  await page.getByLabel("Address of a bundle").fill("./nowhere/");
  await page.keyboard.press("Enter");
  const told = await page.locator("dialog .message").innerText();
  const added = (await page.locator(".model").count()) - models;
  const status = await page.getByRole("status").innerText();

  await page.route("**/late/manifest.json", async (route) => {
    await page.locator("dialog.models").waitFor({ state: "hidden" });
    await route.fulfill({ status: 404 });
  });
  await page.getByLabel("Address of a bundle").fill("./late/");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  const toldLate = await page.locator("#form .message").innerText();

  const removeModel = async (/** @type {string} */ card) => {
    const button = page.locator(card).getByRole("button", { name: "Remove from this machine" });
    await button.press("Enter");
    await button.waitFor({ state: "detached" });
    return focused();
  };
  await page.getByRole("button", { name: /^Model:/ }).press("Enter");
  await page.getByLabel("Address of a bundle").fill("./bundle/?another");
  await page.keyboard.press("Enter");
  await page.locator(".model.current").getByText("another").waitFor();
  await visitor.waitFor("Ready");
  const modelsRemoved = [await removeModel(".model >> nth=0")];
  await page.keyboard.press("Enter"); // opens it again, and the other one can be removed
  await visitor.waitFor("Ready");
  await page.getByRole("button", { name: /^Model:/ }).press("Enter");
  modelsRemoved.push(await removeModel(".model >> nth=1"));
  return { undone, presetRemoved, presets, removed, told, added, status, toldLate, modelsRemoved };
}

/** Another tab saves a preset, then this one does; the names of those that are kept. @param {Stage["visitor"]} visitor */
async function savePresetsInTwoTabs({ page }) {
  const opened = page.waitForEvent("popup");
  await page.evaluate(() => void open("favicon.svg"));
  const other = await opened;
  await other.waitForURL("**/favicon.svg");
  await other.evaluate(() =>
    localStorage.setItem("mlc-controlnet / presets", JSON.stringify({ theirs: { eta: "1" } })),
  );
  await other.close();
  await page.getByRole("button", { name: "theirs", exact: true }).waitFor();
  await page.getByRole("button", { name: "Save as preset…" }).press("Enter");
  await page.getByRole("button", { name: "my way", exact: true }).waitFor();
  return page.evaluate(() => Object.keys(JSON.parse(localStorage.getItem("mlc-controlnet / presets") ?? "{}")));
}
