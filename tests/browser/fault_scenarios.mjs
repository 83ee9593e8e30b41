/** What goes wrong around the engine, and what the page's thread does meanwhile. Facts for test_faults.py and test_main_thread.py. */

/** @typedef {import("./scenarios.mjs").Stage} Stage */

/**
 * Load the model twice, draw pictures and save one, while the browser writes down what the page's thread does: the longest
 * task, in milliseconds of the processor's time and by the clock. @param {Stage} stage
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
  await browser.startTracing(page, { categories: ["toplevel", "disabled-by-default-devtools.timeline", "__metadata"] });
  await visitor.open();
  await visitor.waitFor("Ready");
  await page.reload();
  await visitor.waitFor("Ready");
  if (options.steps !== undefined) await visitor.set("Steps", String(options.steps));
  const ends = [await visitor.generate(), await visitor.generate()];
  await visitor.save("Download PNG");
  const longTasks = await page.evaluate(() => /** @type {any} */ (window).tasks);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  return { ends, longTasks, tasks: mainThreadTasks(traceEvents) };
}

/** @param {any[]} events of a trace */
function mainThreadTasks(events) {
  const threads = events.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain");
  const main = new Set(threads.map(({ pid, tid }) => `${pid} ${tid}`));
  return events
    .filter(
      ({ name, ph, pid, tid }) => name === "ThreadControllerImpl::RunTask" && ph === "X" && main.has(`${pid} ${tid}`),
    )
    .map(({ dur, tdur, args }) => ({
      clockMs: dur / 1000,
      processorMs: tdur / 1000,
      from: args?.src_func ?? args?.src ?? "",
    }))
    .sort((one, other) => other.clockMs - one.clockMs)
    .slice(0, 20);
}
