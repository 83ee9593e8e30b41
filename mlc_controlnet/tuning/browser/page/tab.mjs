/** Joins a search: asks for candidates, measures them, gives their times back, until it is stopped or the search is over. */

import { Bench } from "./measure.mjs";

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render/i; // as in web/src/engine/device.ts
const WANTED_FEATURES = /** @type {const} */ (["shader-f16", "timestamp-query", "subgroups"]);
const WANTED_LIMITS = /** @type {const} */ ([
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
]);
const RETRY_MS = 2000;

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const [status, counter, last, button] = ["status", "count", "last", "stop"].map(element);

/** @param {string} text */
function say(text) {
  status.textContent = text;
}

/** The device went away. */
class Lost extends Error {}

/** What ends all: no retry helps. */
class Over extends Error {}

let measured = 0;

/** @param {GPUAdapter} adapter */
function describe({ info, features }) {
  const { vendor, architecture, device, description } = info;
  const is_software =
    info.isFallbackAdapter === true || SOFTWARE.test([vendor, architecture, device, description].join());
  return { vendor, architecture, device, description, is_software, features: [...features].sort() };
}

async function openDevice() {
  if (navigator.gpu === undefined)
    throw new Over("This browser has no WebGPU: open the page in a current Chrome, Edge or Safari.");
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new Error("WebGPU finds no adapter; asking again.");
  const device = await adapter.requestDevice({
    requiredFeatures: WANTED_FEATURES.filter((feature) => adapter.features.has(feature)),
    requiredLimits: Object.fromEntries(WANTED_LIMITS.map((name) => [name, adapter.limits[name]])),
  });
  return { adapter, device };
}

/** @param {string} path @param {unknown} body @param {AbortSignal} signal */
async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  try {
    return await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch {
    throw new Error("tune does not answer; asking again.");
  }
}

/** Yield the lines of JSON of an answer. @param {Response} response @returns {AsyncGenerator<any>} */
async function* messages(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Measure on one device, until it is lost or the connection ends. @param {AbortSignal} signal */
async function takePart(signal) {
  const { adapter, device } = await openDevice();
  const lost = device.lost.then(({ message }) => {
    throw new Lost(message || "the browser gives no reason");
  });
  const connection = new AbortController();
  let isMeasuring = false;
  lost.catch(() => isMeasuring || connection.abort()); // while it measures, the answer says that it was lost
  const both = AbortSignal.any([signal, connection.signal]);
  try {
    const joined = await post("join", describe(adapter), both);
    if (!joined.ok) throw new Over((await joined.json()).message);
    const bench = new Bench(device);
    const { vendor, architecture, description } = adapter.info;
    const waiting = `Waiting for candidates, on ${description || `${vendor} ${architecture}`}.`;
    let tab = "";
    for await (const message of messages(joined)) {
      if (message.kind === "over") throw new Over("The search is over. This page can be closed.");
      if (message.kind === "welcome") {
        tab = message.tab;
        say(waiting);
      }
      if (message.kind !== "work") continue;
      say(`Measuring: ${message.title}`);
      const { job } = message;
      /** @type {unknown} */
      let answer;
      isMeasuring = true;
      try {
        answer = await Promise.race([bench.measure(message), lost]);
        await Promise.race([lost, device.queue.onSubmittedWorkDone()]); // a lost device ends all waiting with success
      } catch (error) {
        const reason = error instanceof Lost ? error.message : ((await lostReason(lost)) ?? String(error));
        await post("answer", { tab, job, answer: { lost: reason } }, signal);
        throw new Lost(reason);
      }
      isMeasuring = false;
      await post("answer", { tab, job, answer }, both);
      say(waiting);
      measured++;
      counter.textContent = String(measured);
      last.textContent = `The last: ${message.title}.`;
    }
    throw new Error("The connection to tune has ended; joining again.");
  } finally {
    connection.abort();
    device.destroy();
  }
}

/** Return why a device is lost, if it is. @param {Promise<never>} lost @returns {Promise<string | undefined>} */
function lostReason(lost) {
  const later = new Promise((resolve) => setTimeout(resolve, 100)).then(() => undefined);
  return Promise.race([lost.catch((/** @type {Error} */ error) => error.message), later]);
}

/** @param {AbortSignal} signal */
async function measureUntil(signal) {
  while (!signal.aborted) {
    try {
      await takePart(signal);
    } catch (error) {
      if (error instanceof Over) return error.message;
      if (signal.aborted) break;
      const text = /** @type {Error} */ (error).message;
      say(error instanceof Lost ? `The GPU device was lost (${text}); opening another one.` : text);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  return "Stopped.";
}

/** @type {AbortController | undefined} */
let running;

async function start() {
  const controller = new AbortController();
  running = controller;
  button.textContent = "Stop";
  say("Another tab of this browser measures; this one waits for its turn.");
  /** Two tabs of one browser would share one GPU, and spoil each other's times. */
  const outcome = await navigator.locks
    .request("measure", { signal: controller.signal }, () => {
      say("Joining.");
      return measureUntil(controller.signal);
    })
    .catch(() => "Stopped.");
  running = undefined;
  say(outcome);
  button.textContent = "Measure again";
}

button.addEventListener("click", () => {
  if (running === undefined) start();
  else running.abort();
});
start();
