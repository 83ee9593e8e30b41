/**
 * The controls of the page that were there, and those that were used: noted in the page with every event.
 *
 * A control is its role and name. Numbers in names do not count, nor what follows a colon. Long lists of alike choices, of
 * classes, colours and pictures, count as one control each.
 */

/** @param {import("playwright-core").Page} page */
export async function keepLedger(page) {
  await page.addInitScript(() => {
    const CONTROLS = "button, input:not([type=file]), select, textarea, summary, a[href], [tabindex]";
    const ALIKE = {
      ".class-list": "a class",
      ".swatches": "a colour",
      ".thumbnails": "a picture",
      ".samples": "a sample",
    };
    /** @type {Set<string>} */
    const seen = new Set();
    /** @type {Set<string>} */
    const used = new Set();
    const keyOf = (/** @type {any} */ element) => {
      for (const [list, name] of Object.entries(ALIKE)) if (element.closest(list)) return name;
      const role = element.getAttribute("role") ?? (element.type || element.localName);
      const label = element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent;
      const group = role === "radio" ? `${element.closest("fieldset")?.querySelector("legend")?.textContent} / ` : "";
      const name = `${group}${label}`.split(":")[0].replace(/\d+/g, "#").trim();
      return `${role} ${name}`;
    };
    const look = () => {
      for (const element of document.querySelectorAll(CONTROLS)) {
        if (element.checkVisibility() && !(/** @type {any} */ (element).disabled)) seen.add(keyOf(element));
      }
    };
    const note = (/** @type {Event} */ event) => {
      look();
      const control = event.target instanceof Element ? event.target.closest(CONTROLS) : null;
      if (control) used.add(keyOf(control));
    };
    for (const type of ["click", "input", "change", "keydown", "pointerdown"]) {
      window.addEventListener(type, note, { capture: true });
    }
    Object.assign(window, {
      ledger: () => ({ seen: [...seen].sort(), unused: [...seen].filter((key) => !used.has(key)) }),
    });
  });
}

/** Use every field in `root`, each by keys as its kind is used. @param {import("playwright-core").Locator} root */
export async function useFields(root) {
  const fields = root.locator("input:not([type=file]), select").filter({ visible: true });
  for (let i = 0; i < (await fields.count()); i++) {
    const field = fields.nth(i);
    const [type, isList] = await field.evaluate((/** @type {any} */ element) => [
      element.localName === "select" ? "select" : element.type,
      element.closest(".class-list, .swatches") !== null,
    ]);
    if (isList || (await field.isDisabled())) continue;
    if (type === "radio") await field.click({ force: true });
    else if (type === "checkbox") for (const _ of ["on", "off"]) await field.click({ force: true });
    else if (type === "text" || type === "search") await field.pressSequentially("a");
    else for (const key of ["ArrowDown", "ArrowUp"]) await field.press(key);
  }
}
