/** The worker in which a page runs a contest on the processor: a page's own thread may not wait for other threads. */

import { runContest } from "./contest.js";

addEventListener("message", async ({ data: { base, ort } }) => {
  try {
    const outcome = await runContest(base, ort, (line) => postMessage({ line }));
    postMessage({ outcome });
  } catch (error) {
    postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
});
