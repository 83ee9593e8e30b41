import { expect, test } from "vitest";
import { Queue } from "../../src/engine/queue";

/** An action that ends when it is told to. */
function held() {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { action: () => ended, end };
}

test("one call runs, the others wait in their order and hear how many are before them", async () => {
  const queue = new Queue();
  const log: string[] = [];
  const first = held();
  const calls = [
    queue.run(first.action),
    ...["b", "c"].map((name) =>
      queue.run(async () => log.push(name), { onQueue: (ahead) => log.push(`${name} after ${ahead}`) }),
    ),
  ];
  expect(queue.waiting).toBe(2);
  first.end();
  await Promise.all(calls);
  expect(log).toEqual(["b after 1", "c after 2", "c after 1", "b after 0", "b", "c after 0", "c"]);
  expect(queue.waiting).toBe(0);
});

test("a call that fails does not stop the next one", async () => {
  const queue = new Queue();
  const failed = queue.run(async () => Promise.reject(new Error("no")));
  const next = queue.run(async () => "yes");
  await expect(failed).rejects.toThrow("no");
  expect(await next).toBe("yes");
});

test("a call that is aborted while it waits leaves the line at once", async () => {
  const queue = new Queue();
  const first = held();
  const running = queue.run(first.action);
  const controller = new AbortController();
  let began = false;
  const aborted = queue.run(async () => (began = true), { signal: controller.signal });
  const places: number[] = [];
  const last = queue.run(async () => "last", { onQueue: (ahead) => places.push(ahead) });
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
  first.end();
  await running;
  expect(await last).toBe("last");
  expect([began, places]).toEqual([false, [2, 1, 0]]);
});

test("a call that comes between two others does not overtake", async () => {
  const queue = new Queue();
  const log: string[] = [];
  const first = queue.run(async () => log.push("first"));
  const second = queue.run(async () => log.push("second"));
  const third = first.then(() => queue.run(async () => log.push("third")));
  await Promise.all([second, third]);
  expect(log).toEqual(["first", "second", "third"]);
});

test("idle waits for what runs and what waits", async () => {
  const queue = new Queue();
  const log: string[] = [];
  void queue.run(async () => log.push("a"));
  void queue.run(async () => log.push("b"));
  await queue.idle();
  expect(log).toEqual(["a", "b"]);
});
