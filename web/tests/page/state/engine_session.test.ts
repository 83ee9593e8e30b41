import { beforeEach, describe, expect, test, vi } from "vitest";
import { EngineSession } from "../../../src/page/state/engine_session";
import { type ControlNetEngine, type EngineOptions, type GenerateRequest, UserError } from "../../../src/worker";

const request = { prompt: "gold" } as GenerateRequest;
const listener = {
  onLoadStart: vi.fn(),
  onManifest: vi.fn(),
  onNotice: vi.fn(),
  onProgress: vi.fn(),
  onLoaded: vi.fn(),
  onFailed: vi.fn(),
};
const engine = { info: { dtype: "float32" }, generate: vi.fn(), unload: vi.fn(async () => {}) };
const create = vi.fn(async (_: EngineOptions) => engine as unknown as ControlNetEngine);
/** The use of memory with which each engine was created. */
const asked = () => create.mock.calls.map(([{ memory }]) => memory);
let session: EngineSession;

beforeEach(() => {
  vi.resetAllMocks();
  create.mockImplementation(async () => engine as unknown as ControlNetEngine);
  engine.unload.mockImplementation(async () => {});
  session = new EngineSession(create, ["./bundle/"], listener);
});

test("the engine is loaded once, and the page hears of it", async () => {
  await Promise.all([session.load(), session.load()]);
  expect(create).toHaveBeenCalledTimes(1);
  expect(listener.onLoadStart).toHaveBeenCalledTimes(1);
  expect(listener.onLoaded).toHaveBeenCalledWith(engine.info);
});

test("the page hears what the engine notices while it loads, but not of a bundle that it no longer opens", async () => {
  const tellLater: (() => void)[] = [];
  create.mockImplementation(async ({ bundleUrl, onNotice }) => {
    const tell = () => onNotice?.(`no room for ${bundleUrl}`);
    tell();
    tellLater.push(tell);
    return engine as unknown as ControlNetEngine;
  });
  await session.load();
  session.useBundle(["./other/"]);
  await session.load();
  tellLater[0]();
  expect(listener.onNotice.mock.calls).toEqual([["no room for ./bundle/"], ["no room for ./other/"]]);
});

test("a load that failed is tried again at the next call", async () => {
  create.mockRejectedValueOnce(new Error("offline"));
  await expect(session.load()).rejects.toThrow("offline");
  await session.load();
  expect(create).toHaveBeenCalledTimes(2);
});

test("the page hears of a failure, but not of one of a bundle that it no longer opens", async () => {
  let fail: (error: Error) => void = () => {};
  create.mockImplementationOnce(() => new Promise((_, reject) => (fail = reject)));
  const first = session.load();
  session.useBundle(["./other/"]);
  await session.load();
  fail(new Error("no WebGPU"));
  await expect(first).rejects.toThrow("no WebGPU");
  expect(listener.onLoaded).toHaveBeenCalledTimes(1);
  expect(listener.onFailed).not.toHaveBeenCalled();

  session.useBundle(["./third/"]);
  create.mockRejectedValueOnce(new Error("offline"));
  await expect(session.load()).rejects.toThrow("offline");
  expect(listener.onFailed).toHaveBeenCalledExactlyOnceWith(new Error("offline"));
});

/** An engine that loads until it is given up, as the worker's does. */
const loadingOn = ({ signal }: EngineOptions) =>
  new Promise<ControlNetEngine>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));

test("a cancel ends the loading with its downloads, which is no failure, and the next call loads anew", async () => {
  create.mockImplementationOnce(loadingOn);
  const controller = new AbortController();
  const ready = session.ready(controller.signal);
  controller.abort();
  await expect(ready).rejects.toMatchObject({ name: "AbortError" });
  expect(create.mock.calls[0][0].signal?.aborted).toBe(true);
  await session.load();
  expect(create).toHaveBeenCalledTimes(2);
  expect(listener.onFailed).not.toHaveBeenCalled();
  expect(listener.onLoaded).toHaveBeenCalledTimes(1);
});

test("a cancel before the waiting has begun ends a load that is under way, and leaves a loaded engine", async () => {
  create.mockImplementationOnce(loadingOn);
  const given = session.load();
  await expect(session.ready(AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
  await expect(given).rejects.toMatchObject({ name: "AbortError" });
  await session.load();
  await expect(session.ready(AbortSignal.abort())).rejects.toMatchObject({ name: "AbortError" });
  await session.load();
  expect(create).toHaveBeenCalledTimes(2);
  expect(engine.unload).not.toHaveBeenCalled();
});

test("another bundle ends the downloads of the one before, whose mirrors are not asked", async () => {
  create.mockImplementationOnce(loadingOn);
  session.useBundle(["./gone/", "https://mirror.example/gone/"]);
  const given = session.load();
  session.useBundle(["./other/"]);
  await session.load();
  await expect(given).rejects.toMatchObject({ name: "AbortError" });
  expect(create.mock.calls.map(([{ bundleUrl, signal }]) => [bundleUrl, signal?.aborted])).toEqual([
    ["./gone/", true],
    ["./other/", false],
  ]);
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

describe("memory", () => {
  test("once full, is used less of by the next engine", async () => {
    engine.generate.mockRejectedValueOnce(new UserError("GPU memory", "none left", "3 GB", "close tabs"));
    await expect(session.generate(request, {})).rejects.toThrow("GPU memory");
    await session.load();
    expect(asked()).toEqual(["auto", "reduced"]);
  });

  test("is used as the visitor chooses, by a new engine", async () => {
    await session.load();
    session.useMemory("auto");
    await session.load();
    session.useMemory("reduced");
    await session.load();
    expect(asked()).toEqual(["auto", "reduced"]);
    expect(engine.unload).toHaveBeenCalledTimes(1);
  });

  test("chosen while the model loads, is told of the new load alone", async () => {
    let finish: (engine: ControlNetEngine) => void = () => {};
    create.mockImplementationOnce(() => new Promise((resolve) => (finish = resolve)));
    const first = session.load();
    session.useMemory("reduced");
    await session.load();
    finish({ ...engine, info: { dtype: "stale" } } as unknown as ControlNetEngine);
    await first;
    expect(listener.onLoaded.mock.calls).toEqual([[engine.info]]);
    await session.load();
    expect(asked()).toEqual(["auto", "reduced"]);
  });

  test("chosen to hold all weights is not overruled", async () => {
    session.useMemory("resident");
    engine.generate.mockRejectedValueOnce(new UserError("GPU memory", "none left", "3 GB", "close tabs"));
    await expect(session.generate(request, {})).rejects.toThrow("GPU memory");
    await session.load();
    expect(asked()).toEqual(["resident", "resident"]);
  });
});
