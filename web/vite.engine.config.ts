import { resolve } from "node:path";
import { defineConfig } from "vite";
import { leaveOutNodeModules } from "./vite.config.ts";

/** The engine as a library for other sites: `npm run build:engine` writes ES modules and types into ../dist/engine. */
export default defineConfig({
  base: "./",
  publicDir: "engine_package",
  build: {
    outDir: resolve(import.meta.dirname, "..", "dist", "engine"),
    emptyOutDir: true,
    target: "es2022",
    lib: {
      entry: {
        index: resolve(import.meta.dirname, "src", "worker", "index.ts"),
        engine: resolve(import.meta.dirname, "src", "engine", "index.ts"),
        element: resolve(import.meta.dirname, "src", "element", "control_net.ts"),
      },
      formats: ["es"],
    },
  },
  worker: { format: "es", plugins: () => [leaveOutNodeModules()] },
  plugins: [leaveOutNodeModules()],
});
