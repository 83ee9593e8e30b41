import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { extname, join, normalize, resolve, sep } from "node:path";
import type { Plugin, Rolldown } from "vite";
import { defineConfig } from "vitest/config";
import { openCvWithoutEval } from "./opencv_without_eval.ts";

const repository = resolve(import.meta.dirname, "..");
/** What the development server serves as ./bundle/; beside the built page build.py puts a copy. */
const bundle = resolve(process.env.BUNDLE ?? join(repository, "dist", "circles-webgpu"));

function serveBundle(): Plugin {
  const types: Record<string, string> = { ".json": "application/json", ".wasm": "application/wasm" };
  return {
    name: "serve-bundle",
    apply: "serve",
    configureServer(server) {
      server.middlewares.use("/bundle", (request, response, next) => {
        const path = normalize(join(bundle, decodeURIComponent((request.url ?? "/").split("?")[0])));
        if (!path.startsWith(bundle + sep) || !existsSync(path) || !statSync(path).isFile()) return next();
        response.setHeader("content-type", types[extname(path)] ?? "application/octet-stream");
        createReadStream(path).pipe(response);
      });
    },
  };
}

/** tvmjs and OpenCV.js ask for Node's modules in code that only Node runs; a page needs none of them. */
export function leaveOutNodeModules(): Plugin {
  const empty = "\0node-module-left-out";
  return {
    name: "leave-out-node-modules",
    enforce: "pre",
    resolveId: (id, importer) =>
      /^(crypto|fs|path|perf_hooks|ws)$/.test(id) && /@mlc-ai.web-runtime|@techstark.opencv-js/.test(importer ?? "")
        ? empty
        : undefined,
    load: (id) => (id === empty ? "export default {}" : undefined),
  };
}

/** The development server injects styles and scripts inline, which the page's own policy forbids. */
function relaxPolicyInDevelopment(): Plugin {
  return {
    name: "relax-policy-in-development",
    apply: "serve",
    transformIndexHtml: (html) => html.replace(/<meta http-equiv="Content-Security-Policy"[^>]*>/s, ""),
  };
}

/** OpenCV.js and ONNX Runtime, of ten megabytes and more, which few visits use; the service worker keeps them from then on. */
const isOnDemand = (name: string) => /opencv_worker|onnx_worker|ort-wasm/.test(name);

/** Files of public/ that a visit without a network needs. */
const BESIDE_THE_PAGE = ["./icon-192.png", "./manifest.webmanifest", "./models.json"];

/** Puts src/page/offline.js beside the page, with the names of the page's files. */
function emitServiceWorker(): Plugin {
  return {
    name: "emit-service-worker",
    apply: "build",
    generateBundle: {
      order: "post", // the page itself is among the files by then
      handler(_, files) {
        const page = files["index.html"] as Rolldown.OutputAsset;
        const built = Object.keys(files).filter((name) => name !== "index.html" && !isOnDemand(name));
        const names = ["./", ...BESIDE_THE_PAGE, ...built];
        const source = readFileSync(join(import.meta.dirname, "src", "page", "offline.js"), "utf8")
          .replace('["%FILES%"]', JSON.stringify(names))
          .replace("%VERSION%", createHash("sha256").update(page.source).digest("hex").slice(0, 12));
        this.emitFile({ type: "asset", fileName: "offline.js", source });
      },
    },
  };
}

export default defineConfig({
  base: "./", // the site works from any folder of any host
  build: {
    outDir: join(repository, "dist", "site"),
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
  },
  worker: { format: "es", plugins: () => [leaveOutNodeModules(), openCvWithoutEval()] },
  plugins: [leaveOutNodeModules(), serveBundle(), relaxPolicyInDevelopment(), emitServiceWorker()],
  test: { include: ["tests/**/*.test.ts"] },
});
