import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { awaitWork, looksRarely } from "../../src/engine/wait";

const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0";
const CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
const FIREFOX_IOS =
  "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 FxiOS/147.0 Safari/605.1";

function fakeDevice() {
  const submit = vi.fn();
  const device = { queue: { submit }, createCommandEncoder: () => ({ finish: () => "empty" }) };
  return { device: device as unknown as GPUDevice, submit };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("only Firefox looks rarely", () => {
  expect([FIREFOX, CHROME, FIREFOX_IOS].map((agent) => looksRarely(agent))).toEqual([true, false, false]);
});

describe("in a browser that looks rarely", () => {
  test("empty command buffers are submitted every millisecond, and none after the work is done", async () => {
    const { device, submit } = fakeDevice();
    let resolve = (_: string) => {};
    const work = new Promise<string>((done) => {
      resolve = done;
    });
    const waiting = awaitWork(work, device, true);
    await vi.advanceTimersByTimeAsync(3);
    expect(submit.mock.calls).toEqual([[["empty"]], [["empty"]], [["empty"]]]);
    resolve("done");
    expect(await waiting).toBe("done");
    await vi.advanceTimersByTimeAsync(50);
    expect(submit).toHaveBeenCalledTimes(3);
  });

  test("nothing is submitted after the work failed", async () => {
    const { device, submit } = fakeDevice();
    await expect(awaitWork(Promise.reject(new Error("lost")), device, true)).rejects.toThrow("lost");
    await vi.advanceTimersByTimeAsync(50);
    expect(submit).not.toHaveBeenCalled();
  });
});

test("in other browsers nothing is submitted", async () => {
  const { device, submit } = fakeDevice();
  const work = new Promise<void>((done) => setTimeout(done, 50));
  const waiting = awaitWork(work, device, false);
  await vi.advanceTimersByTimeAsync(50);
  await waiting;
  expect(submit).not.toHaveBeenCalled();
});
