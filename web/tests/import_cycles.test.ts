import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../src", import.meta.url));

type Imports = ReadonlyMap<string, readonly string[]>;

/** Each module under `root` with the modules there that it imports, types included. */
function importsUnder(root: string): Imports {
  const modules = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((path) => /\.tsx?$/.test(path));
  return new Map(modules.map((path) => [path, importsOf(root, path)]));
}

function importsOf(root: string, path: string): string[] {
  const paths = [...readFileSync(join(root, path), "utf8").matchAll(/\b(?:from|import) ?\(?"(\.[^"]*)"/g)].map(
    ([, name]) => name,
  );
  return paths.map((name) => {
    const base = join(root, dirname(path), name.replace(/\?.*/, "")); // "./worker.ts?worker&url" is Vite's
    const file = [base, `${base}.ts`, `${base}.tsx`, join(base, "index.ts")].find(
      (found) => /\.tsx?$/.test(found) && existsSync(found),
    );
    if (file === undefined) throw new Error(`${path} imports ${name}, which does not exist`);
    return relative(root, file);
  });
}

/** The first cycle that is found, as a path that returns to its start; undefined if there is none. */
function findCycle(imports: Imports): string[] | undefined {
  const finished = new Set<string>();
  const visit = (module: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(module)) return [...path.slice(path.indexOf(module)), module];
    if (finished.has(module)) return undefined;
    for (const next of imports.get(module) ?? []) {
      const cycle = visit(next, [...path, module]);
      if (cycle !== undefined) return cycle;
    }
    finished.add(module);
    return undefined;
  };
  for (const module of imports.keys()) {
    const cycle = visit(module, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

test("no modules import each other in a cycle, types included", () => {
  const imports = importsUnder(ROOT);
  expect(imports.get("worker/index.ts")).toContain("engine/index.ts");
  expect(findCycle(imports)).toBeUndefined();
});

test("a cycle is found and shown from where it starts", () => {
  const imports = new Map([
    ["a", ["b"]],
    ["b", ["c", "d"]],
    ["c", []],
    ["d", ["b"]],
  ]);
  expect(findCycle(imports)).toEqual(["b", "d", "b"]);
});
