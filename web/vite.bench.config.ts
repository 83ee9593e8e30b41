import { resolve } from "node:path";
import { defineConfig } from "vite";
import { leaveOutNodeModules } from "./vite.config.ts";

/** The contest of bench/contest/ as one module, for a page and for Node. onnxruntime-web stays a package of its own. */
export default defineConfig({
  publicDir: false,
  build: {
    outDir: resolve(import.meta.dirname, "..", "dist", "bench"),
    emptyOutDir: true,
    target: "es2022",
    lib: {
      entry: resolve(import.meta.dirname, "bench", "contest", "contest.ts"),
      formats: ["es"],
      fileName: "contest",
    },
  },
  plugins: [leaveOutNodeModules()],
});
