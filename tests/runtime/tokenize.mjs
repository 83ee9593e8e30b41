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

const load = async (name) => (await runnerImport(join(web, "src/engine", name), { root: web, configFile: false })).module;
const [{ PromptTokenizer }, { tokenizePrompt }] = [await load("tokenizer.ts"), await load("prompts.ts")];
const { tokenizer, spec, prompts } = JSON.parse(readFileSync(casesPath, "utf8"));
const prompter = new PromptTokenizer(new TextEncoder().encode(tokenizer), spec);
const idsOf = (prompt) => [...tokenizePrompt(prompt, prompter, 1, "plain").chunks[0].tokenIds];
console.log(JSON.stringify(prompts.map(idsOf)));
