/** Start Firefox and talk to it by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): Playwright drives no ESR. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PLACES = ["/usr/bin/firefox-esr", "/usr/bin/firefox", "/snap/bin/firefox"];
const START_MS = 60_000;

/** The Firefox that the environment variable FIREFOX names, or else the first that is installed, if there is one. */
export const firefoxPath = () => process.env.FIREFOX ?? PLACES.find((place) => existsSync(place));

/**
 * Start Firefox with a new profile. Node 20 needs the flag --experimental-websocket for it.
 *
 * `goto` opens an address and waits until it is loaded. `call` runs a function in the page, with values that JSON can
 * express, and returns what it returns or resolves to.
 */
export async function launchFirefox() {
  const executable = firefoxPath();
  if (executable === undefined) {
    throw new Error(`no Firefox in ${PLACES.join(", ")}: apt-get install firefox-esr, or set FIREFOX to its path`);
  }
  const profile = mkdtempSync(join(tmpdir(), "firefox-"));
  const flags = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank"];
  const browser = spawn(executable, flags, { stdio: ["ignore", "ignore", "pipe"] });
  const end = () => {
    browser.once("exit", () => rmSync(profile, { recursive: true, force: true }));
    browser.kill();
  };
  try {
    const socket = new WebSocket(`${await addressOf(browser)}/session`);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error("Firefox did not answer"));
    });
    const send = commands(socket);
    const { capabilities } = await send("session.new", { capabilities: {} });
    const { contexts } = await send("browsingContext.getTree", {});
    const [{ context }] = contexts;
    return {
      version: `${capabilities.browserName} ${capabilities.browserVersion}`,
      goto: (/** @type {string} */ url) => send("browsingContext.navigate", { context, url, wait: "complete" }),
      call: async (/** @type {(argument: any) => unknown} */ action, /** @type {unknown} */ argument = null) => {
        const { result, exceptionDetails } = await send("script.callFunction", {
          functionDeclaration: `async () => JSON.stringify(await (${action})(${JSON.stringify(argument)}))`,
          target: { context },
          awaitPromise: true,
        });
        if (exceptionDetails !== undefined) throw new Error(exceptionDetails.text);
        return result.value === undefined ? undefined : JSON.parse(result.value);
      },
      close: end,
    };
  } catch (error) {
    end();
    throw error;
  }
}

/** The address that Firefox prints when it listens. @param {import("node:child_process").ChildProcess} browser */
async function addressOf(browser) {
  const lines = createInterface({ input: /** @type {import("node:stream").Readable} */ (browser.stderr) });
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("Firefox does not listen")), START_MS);
    browser.once("exit", (code) => reject(new Error(`Firefox ended with code ${code}`)));
    lines.on("line", (line) => {
      const address = /WebDriver BiDi listening on (ws:\S+)/.exec(line)?.[1];
      if (address === undefined) return;
      clearTimeout(late);
      resolve(address);
    });
  });
}

/** @param {WebSocket} socket @returns {(method: string, params: unknown) => Promise<any>} */
function commands(socket) {
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void }>} */
  const waiting = new Map();
  let last = 0;
  socket.onmessage = ({ data }) => {
    const { id, type, result, message } = JSON.parse(data);
    if (type === "error") waiting.get(id)?.reject(new Error(message));
    else waiting.get(id)?.resolve(result);
    waiting.delete(id);
  };
  return (method, params) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params }));
    });
}
