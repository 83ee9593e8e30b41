/**
 * In the page: load the engine and the bundle, draw, and cancel a second picture after its first step.
 *
 * @param {{ device: string, request: object }} options
 */
export async function drawWith({ device, request }) {
  const { createEngine, purgeBundle } = await import(
    /** @type {any} */ (new URL("./engine/index.js", location.href).href)
  );
  const engine = await createEngine({ bundleUrl: "./bundle/", device });
  const { runsOn, reason, dtype, threads, manifest } = engine.info;
  const controlImage = new ImageData(manifest.model.width, manifest.model.height);
  controlImage.data.fill(255);
  const start = performance.now();
  const { data } = await engine.generate({ ...request, controlImage });
  const milliseconds = performance.now() - start;
  const cancelled = new AbortController();
  const onStep = () => cancelled.abort();
  const long = { ...request, controlImage, numInferenceSteps: 50 }; // the cancel must arrive before the last step
  const end = await engine.generate(long, { onStep, signal: cancelled.signal }).catch(String);
  await engine.unload();
  await purgeBundle("./bundle/");
  return { runsOn, reason, dtype, threads, data: Array.from(data), milliseconds, end };
}
