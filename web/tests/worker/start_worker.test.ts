import { beforeEach, expect, test, vi } from "vitest";
import { startWorker } from "../../src/worker/start_worker";

let started: string[];

beforeEach(() => {
  started = [];
  vi.stubGlobal("origin", "https://site.example");
  vi.stubGlobal(
    "Worker",
    class {
      constructor(url: string) {
        started.push(url);
      }
      terminate() {}
    },
  );
});

test("a script of the page's own origin runs as it is", () => {
  const { notLoaded } = startWorker(new URL("https://site.example/engine/assets/worker-1a.js"));
  expect(started).toEqual(["https://site.example/engine/assets/worker-1a.js"]);
  expect(notLoaded.remedy).toContain("worker-src 'self'");
});

test("a script of another origin is imported by one of the page's own", async () => {
  const { notLoaded } = startWorker(new URL("https://cdn.example/worker.js"));
  const [url] = started;
  expect(url).toMatch(/^blob:/);
  expect(await (await fetch(url)).text()).toBe('import "https://cdn.example/worker.js";');
  expect(notLoaded.got).toContain("https://cdn.example/worker.js");
  expect(notLoaded.remedy).toContain("Access-Control-Allow-Origin");
});

test("a sandboxed frame has no origin, so that every script is of another", () => {
  vi.stubGlobal("origin", "null");
  startWorker(new URL("https://site.example/worker.js"));
  expect(started[0]).toMatch(/^blob:/);
});

test("where Vite's development server has moved the engine, the message names its option", () => {
  const { notLoaded } = startWorker(new URL("https://site.example/node_modules/.vite/deps/assets/worker.js"));
  expect(notLoaded.remedy).toContain("optimizeDeps: { exclude: ['mlc-controlnet'] }");
});

test("a policy that forbids the worker is explained", () => {
  vi.stubGlobal("Worker", function forbidden() {
    throw new DOMException("refused", "SecurityError");
  });
  expect(() => startWorker(new URL("https://site.example/worker.js"))).toThrow(
    "the engine's script: got no answer from https://site.example/worker.js",
  );
});
