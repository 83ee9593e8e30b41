import { beforeEach, describe, expect, test, vi } from "vitest";
import { EngineSession } from "../../src/page/engine_session";
import { type ControlNetEngine, type GenerateRequest, UserError } from "../../src/worker";

const request = { prompt: "gold" } as GenerateRequest;
const listener = { onLoadStart: vi.fn(), onProgress: vi.fn(), onLoaded: vi.fn() };
const engine = { info: { dtype: "float32" }, generate: vi.fn(), unload: vi.fn(async () => {}) };
const create = vi.fn(async () => engine as unknown as ControlNetEngine);
let session: EngineSession;

beforeEach(() => {
  vi.resetAllMocks();
  create.mockImplementation(async () => engine as unknown as ControlNetEngine);
  engine.unload.mockImplementation(async () => {});
  session = new EngineSession(create, "./bundle/", listener);
});

test("the engine is loaded once, and the page hears of it", async () => {
  await Promise.all([session.load(), session.load()]);
  expect(create).toHaveBeenCalledTimes(1);
  expect(listener.onLoadStart).toHaveBeenCalledTimes(1);
  expect(listener.onLoaded).toHaveBeenCalledWith(engine.info);
});

test("a load that failed is tried again at the next call", async () => {
  create.mockRejectedValueOnce(new Error("offline"));
  await expect(session.load()).rejects.toThrow("offline");
  await session.load();
  expect(create).toHaveBeenCalledTimes(2);
});

test("a cancel ends the waiting for the engine and lets it load on", async () => {
  let finish: (engine: ControlNetEngine) => void = () => {};
  create.mockImplementation(() => new Promise((resolve) => (finish = resolve)));
  const controller = new AbortController();
  const ready = session.ready(controller.signal);
  controller.abort();
  await expect(ready).rejects.toMatchObject({ name: "AbortError" });
  finish(engine as unknown as ControlNetEngine);
  await session.load();
  expect(create).toHaveBeenCalledTimes(1);
});

describe("after a picture that failed", () => {
  test.each([
    ["was cancelled", new DOMException("", "AbortError")],
    ["had bad settings", new UserError("steps", "0", "1 or 2", "choose")],
  ])("because it %s the engine is kept", async (_, error) => {
    engine.generate.mockRejectedValueOnce(error);
    await expect(session.generate(request, {})).rejects.toBe(error);
    await session.load();
    expect(create).toHaveBeenCalledTimes(1);
  });

  test.each([
    ["the GPU was lost", new UserError("GPU device", "lost", "a device", "try again")],
    ["something broke", new Error("unreachable")],
  ])("because %s the engine is unloaded and loaded anew", async (_, error) => {
    engine.generate.mockRejectedValueOnce(error);
    await expect(session.generate(request, {})).rejects.toBe(error);
    expect(engine.unload).toHaveBeenCalledTimes(1);
    await session.load();
    expect(create).toHaveBeenCalledTimes(2);
  });
});
