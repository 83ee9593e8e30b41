/** One visit that uses every control of the page. */

import { keepLedger, useFields } from "./control_ledger.mjs";

import { spoilManifest } from "./manifest_faults.mjs";

/** @typedef {import("./scenarios.mjs").Stage} Stage */

/** @param {Stage} stage */
export async function useEveryControl({ visitor, host, options }) {
  const { page } = visitor;
  spoilManifest(host, (manifest) => {
    manifest.model.name = "circles"; // the model that has colours
    manifest.controlnets[1].kind = "seg";
  });
  page.on("dialog", (dialog) => dialog.accept("my way"));
  host.url += "?memory=auto#prompt=gold&clip_skip=1";
  await keepLedger(page);
  await visitor.open();
  await visitor.waitFor("Ready");
  const press = (/** @type {string} */ name) => page.getByRole("button", { name, exact: true }).first().click();
  const picture = { ...options.picture, buffer: Buffer.from(options.picture.base64, "base64") };
  const open = async (/** @type {string} */ button) => {
    const chooser = page.waitForEvent("filechooser");
    await press(button);
    await (await chooser).setFiles(picture);
  };

  // The request: settings that a link has brought, presets, colours, settings.
  await page.getByText("Settings", { exact: true }).click();
  await press("Forget");
  for (const row of ["Circle", "Background"]) {
    await page
      .getByRole("group", { name: row })
      .getByRole("radio", { name: "red", exact: true })
      .check({ force: true });
  }
  await press("Save as preset…");
  await press("my way");
  await press("Remove the preset my way");
  await useFields(page.locator("#form"));
  await press("New");
  await visitor.set("Steps", "4");
  await visitor.set("Guidance scale", "2");
  await visitor.set("Pictures", "1");

  // The photo and its mask.
  await useFields(page.locator(".inputs > fieldset")); // ends with a part of a picture
  const photo = page.locator(".photo");
  await open("Open photo…");
  await photo.getByRole("button", { name: "Camera…" }).click();
  await press("Close");
  await page.getByLabel("Only the masked part").check();
  await useFields(photo);
  await page.getByLabel("Only the masked part").check();
  await photo.getByRole("spinbutton", { name: "Space around the mask" }).press("ArrowUp");
  for (const button of ["All", "Clear the brush", "Undo the brush", "Redo the brush"]) await press(button);
  const brush = photo.getByRole("application");
  for (const key of [" ", "Shift+ArrowRight", " "]) await brush.press(key);
  await press("Trace edges");
  await page.getByRole("radio", { name: "Nothing" }).check({ force: true });

  // Two control units, the second of classes.
  await press("+ Add a control");
  const units = page.locator(".unit");
  const [first, second] = [units.nth(0), units.nth(1)];
  const annotator = first.getByLabel("Annotator");
  for (const name of await annotator
    .locator("option")
    .evaluateAll((all) => all.map((each) => each.getAttribute("value")))) {
    await annotator.selectOption(name);
    await useFields(first.locator(".annotator"));
    await annotator.selectOption(name);
  }
  await annotator.selectOption("onnx");
  const chooser = page.waitForEvent("filechooser");
  await press("Open a model…");
  await (await chooser).setFiles({ ...options.model, buffer: Buffer.from(options.model.base64, "base64") });
  await page.locator(".onnx-name", { hasText: options.model.name }).waitFor();
  await page.getByLabel("It reads").press("ArrowDown");
  await page.getByLabel("Longer side").press("ArrowUp");
  await annotator.selectOption("none");
  await first.getByText("Custom").click();
  await useFields(first.locator(".strength"));
  await first.getByText("Custom").click();
  for (const field of await first.getByRole("spinbutton").all()) await field.press("ArrowUp");
  await useFields(first.locator(".tools"));
  await first.getByRole("radio", { name: "Pencil" }).check({ force: true });
  await first.getByRole("slider", { name: "Line width" }).press("ArrowUp");
  await first.getByRole("button", { name: "Sample 2" }).click();
  await first.getByRole("application").press("ArrowRight");
  for (const button of ["Undo", "Redo", "Camera…"]) await first.getByRole("button", { name: button }).click();
  await press("Take the picture");
  await page.locator("dialog.camera").waitFor({ state: "detached" });
  await open("Open…");
  await visitor.save("Save", "control.png").catch(() => press("Save")); // two units: the first of both
  await first.getByRole("button", { name: "Clear" }).click();
  await second.getByLabel("ControlNet").press("ArrowDown");
  await second.getByRole("searchbox").pressSequentially("sk");
  await second.getByRole("radio", { name: "skyscraper" }).check();
  await useFields(second.locator(".tools"));
  await second.getByRole("application").press("ArrowLeft");
  await second.getByRole("button", { name: "Fill the board" }).click();
  await second.getByText("On", { exact: true }).click();
  await second.getByText("On", { exact: true }).click();
  await second.getByRole("button", { name: "Remove" }).click();

  // Pictures, and what can be done with them.
  await visitor.set("Steps", "900");
  await press("Generate");
  await press("Cancel");
  await visitor.waitFor("Cancelled");
  await press("Generate");
  await page.setViewportSize({ width: 390, height: 844 }); // a phone has a second button to cancel
  await page.locator("#cancel-in-sight").click();
  await visitor.waitFor("Cancelled");
  await page.setViewportSize({ width: 1200, height: 1100 });
  await visitor.set("Steps", "4");
  const end = await visitor.generate();
  await page.evaluate(() => {
    navigator.clipboard.writeText = async () => {};
  });
  await press("Copy link");
  await page.getByRole("button", { name: "Copied" }).waitFor();
  await page.getByRole("button", { name: "Copied" }).waitFor({ state: "detached" });
  await visitor.save("Download PNG", "picture.png");
  await press("Repaint it");
  const inDialog = async (/** @type {string} */ button) => {
    await page.locator(".thumbnails button").first().click();
    await page.locator(".picture-dialog").getByRole("button", { name: button, exact: true }).click();
  };
  await inDialog("Compare");
  await page.getByRole("slider", { name: "Line between the pictures" }).press("ArrowRight");
  await press("Close");
  for (const button of ["Use again", "Vary the seed", "Change it", "Repaint a part", "To the control"])
    await inDialog(button);
  await page.locator(".thumbnails button").first().click();
  const download = page.waitForEvent("download");
  await page.locator(".picture-dialog").getByRole("button", { name: "Download PNG" }).click();
  await download;
  await page.locator(".picture-dialog").getByRole("button", { name: "Remove", exact: true }).click();
  const emptied = await page.locator(".thumbnails img").count();

  // Models and the language.
  const models = page.getByRole("button", { name: /^Model:/ });
  await models.click();
  await press("Close");
  await models.click();
  const folder = page.waitForEvent("filechooser");
  await press("Choose a folder…");
  await (await folder).setFiles([]).catch(() => {});
  await page.getByLabel("Address of a bundle").pressSequentially("./bundle/?another");
  await press("Add");
  await page.getByLabel("Close").first().click();
  await visitor.waitFor("Ready");
  const workers = page.workers().length;
  await models.click();
  await press("Open");
  await visitor.waitFor("Ready");
  await models.click();
  await press("Remove from this machine");
  await press("Close");
  await page.getByLabel("Language").press("ArrowDown");
  const german = await page.locator("html").getAttribute("lang");
  const ledger = await page.evaluate(() => /** @type {any} */ (window).ledger());
  return { ...ledger, end, emptied, workers, german };
}
