import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";

const SITE = "https://site.example/demo/";
const SOURCE = readFileSync(join(import.meta.dirname, "../../src/page/offline.js"), "utf8");

/** The host: bodies by path; a number is a status, what is missing gives no answer. */
let host: Record<string, string | number>;
let hostHeaders: Record<string, string>;
let stores: Map<string, Map<string, Response>>;

const pathOf = (url: string) => url.slice(SITE.length) || "./";

async function fetchFromHost({ url }: { url: string }): Promise<Response> {
  const found = host[pathOf(url)];
  if (found === undefined) throw new TypeError("Failed to fetch");
  if (typeof found === "number") return new Response(null, { status: found });
  return new Response(found, { headers: hostHeaders });
}

/** The Cache API, as far as it is used. */
const caches = {
  async open(name: string) {
    const store = stores.get(name) ?? new Map<string, Response>();
    stores.set(name, store);
    return {
      match: async (url: string) => store.get(url)?.clone(),
      put: async ({ url }: Request, response: Response) => void store.set(url, response),
      addAll: async (requests: Request[]) => {
        const answers = await Promise.all(requests.map(fetchFromHost));
        if (answers.some(({ ok }) => !ok)) throw new TypeError("Request failed");
        for (const [i, { url }] of requests.entries()) store.set(url, answers[i]);
      },
    };
  },
  keys: async () => [...stores.keys()],
  delete: async (name: string) => stores.delete(name),
  async match(url: string) {
    for (const store of stores.values()) if (store.has(url)) return store.get(url)?.clone();
    return undefined;
  },
};

function publish(version: string): void {
  const page = `<script src="./assets/${version}.js">`;
  host = { "./": page, "favicon.svg": version, "models.json": "one model", [`assets/${version}.js`]: version };
}

/** The built service worker of a version; `visit` installs and activates it. */
function serviceWorker(version: string) {
  const files = JSON.stringify(["./", "./favicon.svg", "./models.json", `assets/${version}.js`]);
  const source = SOURCE.replace('["%FILES%"]', files).replace("%VERSION%", version);
  const listeners: Record<string, (event: object) => void> = {};
  const self = {
    registration: { scope: SITE },
    addEventListener: (type: string, listener: () => void) => (listeners[type] = listener),
    skipWaiting: async () => {},
  };
  new Function("self", "caches", "fetch", source)(self, caches, fetchFromHost);
  const wait = async (type: string) => {
    let done: unknown;
    listeners[type]({ waitUntil: (promise: unknown) => (done = promise) });
    await done;
  };
  return {
    async visit() {
      await wait("install");
      await wait("activate");
    },
    /** What a tab gets; undefined where the worker leaves the request alone. */
    async get(path: string) {
      const response = await this.answer(path);
      return response && (response.ok ? response.text() : response.status);
    },
    async answer(path: string) {
      let answer: Promise<Response> | undefined;
      const mode = path === "./" ? "navigate" : "cors";
      const request = { url: new URL(path, SITE).href, mode };
      listeners.fetch({ request, respondWith: (promise: Promise<Response>) => (answer = promise) });
      return answer;
    },
  };
}

const versions = () => [...stores.keys()].map((name) => name.split(" ").at(-1));

beforeEach(() => {
  stores = new Map();
  hostHeaders = {};
  publish("v1");
});

test("the host's page comes before the one that is kept", async () => {
  const worker = serviceWorker("v1");
  await worker.visit();
  publish("v2");
  expect(await worker.get("./")).toContain("v2");
  expect(await worker.get("favicon.svg")).toBe("v2");
  expect(await worker.get("bundle/manifest.json")).toBeUndefined();
});

test.each([
  ["does not answer", undefined],
  ["answers 503", 503],
])("a host that %s leaves the kept page, whole", async (_, status) => {
  const worker = serviceWorker("v1");
  await worker.visit();
  host = status === undefined ? {} : { "./": status, "assets/v1.js": 404 };
  expect(await worker.get("./")).toContain("v1");
  expect(await worker.get("assets/v1.js")).toBe("v1");
});

test("what the host does not isolate is isolated, and an answer of its own stays", async () => {
  const worker = serviceWorker("v1");
  await worker.visit();
  for (const path of ["./", "assets/v1.js"]) {
    const { headers } = (await worker.answer(path)) as Response;
    expect(headers.get("cross-origin-embedder-policy")).toBe("require-corp");
    expect(headers.get("cross-origin-opener-policy")).toBe("same-origin");
  }
  hostHeaders = { "cross-origin-embedder-policy": "credentialless" };
  expect((await worker.answer("./"))?.headers.get("cross-origin-embedder-policy")).toBe("credentialless");
});

test("the newest list of models is there without the host", async () => {
  const worker = serviceWorker("v1");
  await worker.visit();
  host["models.json"] = "two models";
  expect(await worker.get("models.json")).toBe("two models");
  host = {};
  expect(await worker.get("models.json")).toBe("two models");
});

test("an asset of only some visits is there without the host from its first use on", async () => {
  const worker = serviceWorker("v1");
  await worker.visit();
  host["assets/opencv_worker.js"] = "OpenCV";
  expect(await worker.get("assets/opencv_worker.js")).toBe("OpenCV");
  host = {};
  expect(await worker.get("assets/opencv_worker.js")).toBe("OpenCV");
});

test("a page that is gone from the host is gone", async () => {
  const worker = serviceWorker("v1");
  await worker.visit();
  host["./"] = 404;
  expect(await worker.get("./")).toBe(404);
});

test.each([
  ["that of another version", '<script src="./assets/v1.js">'],
  ["no page of ours", "log in first"],
  ["an error", 500],
])("%s is not kept", async (_, page) => {
  publish("v2");
  host["./"] = page;
  await expect(serviceWorker("v2").visit()).rejects.toThrow(`${SITE} is not that of v2`);
  expect(versions()).toEqual([]);
});

test("an open tab keeps the files of the version before; those of earlier ones go", async () => {
  for (const version of ["v1", "v2", "v3"]) {
    publish(version);
    await serviceWorker(version).visit();
  }
  expect(versions()).toEqual(["v2", "v3"]);
  expect(await serviceWorker("v3").get("assets/v2.js")).toBe("v2");
});

test("caches of other sites and of the engine are left alone", async () => {
  const others = ["mlc-controlnet page https://site.example/other/ v0", `mlc-controlnet ${SITE}bundle/`];
  for (const name of others) await caches.open(name);
  for (const version of ["v1", "v2", "v3"]) {
    publish(version);
    await serviceWorker(version).visit();
  }
  expect([...stores.keys()].slice(0, 2)).toEqual(others);
});
