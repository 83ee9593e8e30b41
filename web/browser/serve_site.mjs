/** A static server on localhost for tests and measurements, which behaves like any static host of the site. */

import { existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/**
 * Serve the folder `site`, and the folder `bundle` as its `bundle/`.
 *
 * `faults` maps a path below the site to a function that alters the file's content, or to an HTTP status. A test may
 * change `faults` and `site` while the server runs. `requests` lists the requested paths.
 *
 * With `cors`, pages of every origin may read the files. With `isolated`, pages are cross-origin isolated.
 *
 * @param {{ site: string, bundle: string, cors?: boolean, isolated?: boolean }} folders
 */
export async function serveSite({ site, bundle, cors = false, isolated = false }) {
  /** @type {Map<string, number | ((content: Buffer) => Buffer)>} */
  const faults = new Map();
  /** @type {string[]} */
  const requests = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname).slice(1) || "index.html";
    requests.push(path);
    const [root, relative] = path.startsWith("bundle/") ? [bundle, path.slice("bundle/".length)] : [host.site, path];
    const file = normalize(join(root, relative));
    const fault = faults.get(path);
    const exists = file.startsWith(root + sep) && existsSync(file) && statSync(file).isFile();
    if (!exists || typeof fault === "number") {
      response.writeHead(typeof fault === "number" ? fault : 404).end();
      return;
    }
    const content = readFileSync(file);
    const type = TYPES[/** @type {keyof typeof TYPES} */ (extname(file))] ?? "application/octet-stream";
    const allowed = { ...(cors && { "access-control-allow-origin": "*" }), ...(isolated && ISOLATION) };
    response.writeHead(200, { "content-type": type, ...allowed }).end(fault?.(content) ?? content);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const host = { url: `http://127.0.0.1:${port}/`, site, requests, faults, close: () => server.close() };
  return host;
}
