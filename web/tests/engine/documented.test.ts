import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";

const engine = resolve(import.meta.dirname, "../../src/engine");
const read = (file: string) => readFileSync(join(engine, file), "utf8");

/** The names that index.ts exports, each with the file that declares it. */
const exported = [...read("index.ts").matchAll(/^export (?:type )?\{([^}]+)\} from "\.\/([\w.]+)";$/gm)].flatMap(
  ([, names, file]) =>
    names.split(",").map((name) => [
      name
        .trim()
        .replace(/^type /, "")
        .split(" as ")[0],
      file,
    ]),
);

test("index.ts is read as it is written", () => {
  expect(exported).toContainEqual(["createEngine", "create_engine.ts"]);
  expect(exported).toContainEqual(["words", "option_text.ts"]);
});

test.each(exported)("%s, which the engine exports, has a doc comment", (name, file) => {
  const declaration = new RegExp(
    `\\*/\\nexport (?:async |abstract )*(?:function|class|interface|type|const) ${name}\\b`,
  );
  expect(read(file)).toMatch(declaration);
});
