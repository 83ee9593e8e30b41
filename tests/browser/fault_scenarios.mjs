/** What goes wrong around the engine, and what the page's thread does meanwhile. Facts for test_faults.py and test_main_thread.py. */

/** @typedef {import("./scenarios.mjs").Stage} Stage */

/**
 * Load the model twice, draw pictures and save one, while the browser writes down what its threads do: the longest tasks of
 * the page's thread, in milliseconds of the processor's time and by the clock, and how often each kind of thread compiled or
 * made an instance of WebAssembly. @param {Stage} stage
 */
export async function watchTheMainThread({ visitor, browser, options }) {
  const { page } = visitor;
  await page.addInitScript(() => {
    /** @type {number[]} */
    const tasks = [];
    Object.assign(window, { tasks });
    const note = (/** @type {PerformanceObserverEntryList} */ list) =>
      tasks.push(...list.getEntries().map(({ duration }) => duration));
    new PerformanceObserver(note).observe({ type: "longtask", buffered: true });
  });
  await page.goto("about:blank");
  await browser.startTracing(page, {
    categories: ["toplevel", "disabled-by-default-devtools.timeline", "v8.wasm", "__metadata"],
  });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.reload();
  await visitor.waitFor("Ready");
  if (options.steps !== undefined) await visitor.set("Steps", String(options.steps));
  const ends = [await visitor.generate(), await visitor.generate()];
  await visitor.save("Download PNG");
  const longTasks = await page.evaluate(() => /** @type {any} */ (window).tasks);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const threads = threadNames(traceEvents);
  return { ends, longTasks, tasks: mainThreadTasks(traceEvents, threads), wasm: wasmEvents(traceEvents, threads) };
}

const PAGE_THREAD = "CrRendererMain";

/** A thread of a process in a trace. @param {any} event */
const threadOf = ({ pid, tid }) => `${pid} ${tid}`;

/** The name of each thread. @param {any[]} events of a trace @returns {Map<string, string>} */
function threadNames(events) {
  return new Map(
    events.filter(({ name }) => name === "thread_name").map((event) => [threadOf(event), event.args.name]),
  );
}

/** Events of WebAssembly by the name of their thread. @param {any[]} events of a trace @param {Map<string, string>} threads */
function wasmEvents(events, threads) {
  /** @type {Record<string, number>} */
  const counts = { [PAGE_THREAD]: 0 };
  for (const event of events.filter(({ cat, name }) => cat === "v8.wasm" && name.startsWith("wasm."))) {
    const thread = threads.get(threadOf(event)) ?? "";
    counts[thread] = (counts[thread] ?? 0) + 1;
  }
  return counts;
}

/** The longest ones. @param {any[]} events of a trace @param {Map<string, string>} threads */
function mainThreadTasks(events, threads) {
  return events
    .filter(
      (event) =>
        event.name === "ThreadControllerImpl::RunTask" &&
        event.ph === "X" &&
        threads.get(threadOf(event)) === PAGE_THREAD,
    )
    .map(({ dur, tdur = 0, args }) => ({
      clockMs: dur / 1000,
      processorMs: tdur / 1000,
      from: args?.src_func ?? args?.src ?? "",
    }))
    .sort((one, other) => other.processorMs - one.processorMs)
    .slice(0, 20);
}

const SHARD = "bundle/params/00.bin";

/** In a page of another site: load the engine in a worker and draw; returns the picture's numbers. */
async function loadAndDraw() {
  const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", location.href).href));
  const engine = await createEngine({ bundleUrl: "./bundle/", device: "gpu" });
  const { width, height } = engine.info.manifest.model;
  const { data } = await engine.generate({ prompt: "gold", controlImage: new ImageData(width, height), seed: 3 });
  await engine.unload();
  return [...data];
}

/** Two tabs ask for the same bundle, the second while the first one's download waits for the host. @param {Stage} stage */
export async function loadInTwoTabs({ browser, host }) {
  const context = await browser.newContext();
  const [page, other] = [await context.newPage(), await context.newPage()];
  await Promise.all([page.goto(host.url), other.goto(host.url)]);
  await page.route(`**/${SHARD}`, async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await route.continue();
  });
  const first = page.evaluate(loadAndDraw);
  await page.waitForRequest(`**/${SHARD}`);
  const pictures = await Promise.all([first, other.evaluate(loadAndDraw)]);
  return { pictures, requests: bundleFiles(host) };
}

/** A tab is closed while its download waits for the host. @param {Stage} stage */
export async function closeATabThatLoads({ browser, host }) {
  const context = await browser.newContext();
  const [page, closed] = [await context.newPage(), await context.newPage()];
  await Promise.all([page.goto(host.url), closed.goto(host.url)]);
  await closed.route(`**/${SHARD}`, () => {}); // no answer
  const asked = closed.waitForRequest(`**/${SHARD}`);
  void closed.evaluate(loadAndDraw).catch(() => {});
  await asked;
  await closed.close();
  const picture = await page.evaluate(loadAndDraw);
  host.requests.length = 0;
  const again = await page.evaluate(loadAndDraw);
  return { picture, again, requestsAgain: bundleFiles(host) };
}

/** The browser has room for nothing; later it has. @param {Stage} stage */
export async function loadWithoutRoom({ visitor, host }) {
  const { page } = visitor;
  const session = await page.context().newCDPSession(page);
  const origin = new URL(host.url).origin;
  await page.goto(host.url);
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1 });
  const pictures = [await page.evaluate(loadAndDraw)];
  await session.send("Storage.overrideQuotaForOrigin", { origin });
  /** @type {string[][]} */
  const requests = [];
  for (let visit = 0; visit < 2; visit++) {
    host.requests.length = 0;
    pictures.push(await page.evaluate(loadAndDraw));
    requests.push(bundleFiles(host));
  }
  return { pictures, requests };
}

/** A new version of the bundle is published while an engine of the old one runs. @param {Stage} stage */
export async function publishWhileItRuns({ visitor, host }) {
  const { page } = visitor;
  await page.exposeFunction("publish", () => {
    host.faults.set("bundle/manifest.json", (content) =>
      Buffer.from(content.toString().replace('"linear"', '"second"')),
    );
  });
  await page.goto(host.url);
  return page.evaluate(async () => {
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/index.js", location.href).href));
    const create = () => createEngine({ bundleUrl: "./bundle/", device: "gpu" });
    const old = await create();
    await /** @type {any} */ (window).publish();
    const next = await create();
    const { width, height } = old.info.manifest.model;
    const request = { prompt: "gold", controlImage: new ImageData(width, height), seed: 3 };
    const pictures = [[...(await old.generate(request)).data], [...(await next.generate(request)).data]];
    const names = [old, next].map(({ info }) => info.manifest.model.name);
    await Promise.all([old.unload(), next.unload()]);
    return { pictures, names };
  });
}

/** Cancel at every stage, and draw the whole picture after each. @param {Stage} stage */
export async function cancelAtEveryStage({ visitor, host }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async () => {
    const compile = GPUDevice.prototype.createComputePipelineAsync;
    let compileMs = 0;
    GPUDevice.prototype.createComputePipelineAsync = async function (descriptor) {
      await new Promise((resolve) => setTimeout(resolve, compileMs)); // a picture waits for its kernels
      return compile.call(this, descriptor);
    };
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/engine.js", location.href).href));
    const create = (/** @type {any} */ options = {}) =>
      createEngine({ bundleUrl: "./bundle/", device: "gpu", ...options });
    /** @type {Record<string, { error: string, image: number[] }>} */
    const cancelled = {};
    /** @param {string} stage @param {(abort: AbortController) => Promise<unknown>} cancel @param {() => Promise<any>} next */
    const note = async (stage, cancel, next) => {
      const abort = new AbortController();
      const error = await cancel(abort).then(String, (reason) => reason.name);
      cancelled[stage] = { error, image: [...(await next()).data] };
    };
    /** @type {any} */
    let engine;
    /** @type {any} */
    let request;
    const draw = async () => {
      engine ??= await create();
      const { width, height } = engine.info.manifest.model;
      request = { prompt: "gold", controlImage: new ImageData(width, height), seed: 3, numInferenceSteps: 3 };
      return engine.generate(request);
    };
    for (const stage of ["onManifest", "onProgress"]) {
      await note(
        stage,
        (abort) => create({ signal: abort.signal, [stage]: () => abort.abort() }),
        async () => {
          const image = await draw();
          await engine.unload();
          engine = undefined;
          return image;
        },
      );
    }
    compileMs = 300;
    engine = await create();
    await note("kernels", (abort) => cancelOn(abort, { onProgress: () => abort.abort() }), draw);
    await note(
      "encode",
      (abort) => {
        setTimeout(() => abort.abort());
        return cancelOn(abort, {});
      },
      draw,
    );
    for (const index of [0, 1, 2]) {
      const onStep = (/** @type {AbortController} */ abort) => (/** @type {any} */ step) =>
        step.index === index && abort.abort();
      await note(`step ${index}`, (abort) => cancelOn(abort, { onStep: onStep(abort) }), draw);
    }
    const undisturbed = [...(await draw()).data];
    await engine.unload();
    return { undisturbed, cancelled };

    /** @param {AbortController} abort @param {any} callbacks */
    async function cancelOn(abort, callbacks) {
      const { width, height } = engine.info.manifest.model;
      const controlImage = new ImageData(width, height);
      return engine.generate(
        { prompt: "gold", controlImage, seed: 3, numInferenceSteps: 3 },
        { signal: abort.signal, ...callbacks },
      );
    }
  });
}

/**
 * The GPU has no room: for the first device's weights, then for those of every device, then it has. The browser's own error is
 * reported in the place of one that only a full GPU makes. @param {Stage} stage
 */
export async function fillTheGpu({ visitor, host }) {
  await visitor.page.goto(host.url);
  return visitor.page.evaluate(async () => {
    let failures = 0;
    const { createBuffer } = GPUDevice.prototype;
    GPUDevice.prototype.createBuffer = function (descriptor) {
      if (failures > 0 && descriptor.usage & GPUBufferUsage.STORAGE) {
        failures--;
        const error = new GPUOutOfMemoryError("no room");
        setTimeout(() => this.dispatchEvent(new GPUUncapturedErrorEvent("uncapturederror", { error })));
      }
      return createBuffer.call(this, descriptor);
    };
    const { createEngine } = await import(/** @type {any} */ (new URL("./engine/engine.js", location.href).href));
    /** @param {number} full */
    const draw = async (full) => {
      failures = full;
      /** @type {string[]} */
      const notices = [];
      const onNotice = (/** @type {string} */ notice) => notices.push(notice);
      try {
        const engine = await createEngine({ bundleUrl: "./bundle/", device: "gpu", onNotice });
        const { width, height } = engine.info.manifest.model;
        const request = { prompt: "gold", controlImage: new ImageData(width, height), seed: 3 };
        const image = await engine.generate(request, { onNotice }).finally(() => engine.unload());
        return { notices, image: [...image.data], mode: engine.info.memory.name };
      } catch (/** @type {any} */ error) {
        return { notices, error: error.message, code: error.code };
      }
    };
    return { once: await draw(1), always: await draw(1e9), never: await draw(0) };
  });
}

/** What was asked for of the bundle, without the manifest, which every visit asks for. @param {Stage["host"]} host */
function bundleFiles({ requests }) {
  return requests.filter((path) => path.startsWith("bundle/") && path !== "bundle/manifest.json").sort();
}
