// Tokenize with the browser's tokenizer and print the ids of each prompt as JSON.
//
//   node tokenize.mjs <web folder> <cases.json: {tokenizer: text of tokenizer.json, spec, prompts}>
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [webFolder, casesPath] = process.argv.slice(2);
const web = resolve(webFolder);
const { runnerImport } = await import(pathToFileURL(createRequire(join(web, "package.json")).resolve("vite")).href);

const { module } = await runnerImport(join(web, "src/engine/tokenizer.ts"), { root: web, configFile: false });
const { tokenizer, spec, prompts } = JSON.parse(readFileSync(casesPath, "utf8"));
const prompter = new module.PromptTokenizer(new TextEncoder().encode(tokenizer), spec);
console.log(JSON.stringify(prompts.map((prompt) => [...prompter.encode(prompt).tokenIds])));
