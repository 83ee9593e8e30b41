/**
 * Typed records from JSON. Every field is checked; no key may be unknown, and none missing unless `absentMeans` allows it.
 * Twin: mlc_controlnet/bundle/json_record.py.
 */

import { UserError } from "./errors.ts";

export const REMEDY =
  "the file is damaged or from another version: build the bundle again with python -m mlc_controlnet build";

/** Checks `value` and returns it typed; `where` names it in errors, for example `manifest.json.params.records[3]`. */
export type Parser<T> = (value: unknown, where: string) => T;

/** The type that a parser returns. */
export type Parsed<P> = P extends Parser<infer T> ? T : never;

export const string: Parser<string> = (value, where) => {
  if (typeof value !== "string") throw misfit(where, value, "a string");
  return value;
};

export const number: Parser<number> = (value, where) => {
  if (typeof value !== "number") throw misfit(where, value, "a number");
  return value;
};

export const integer: Parser<number> = (value, where) => {
  if (!Number.isSafeInteger(value)) throw misfit(where, value, "an integer");
  return value as number;
};

export const boolean: Parser<boolean> = (value, where) => {
  if (typeof value !== "boolean") throw misfit(where, value, "true or false");
  return value;
};

/** For a key that may be missing because files can be older than it: `value` then applies. */
export function absentMeans<T>(value: T, item: Parser<T>): Parser<T> {
  return Object.assign((...read: Parameters<Parser<T>>) => item(...read), { absentMeans: value });
}

export function list<T>(item: Parser<T>): Parser<readonly T[]> {
  return (value, where) => {
    if (!Array.isArray(value)) throw misfit(where, value, "a list");
    return value.map((element, i) => item(element, `${where}[${i}]`));
  };
}

export function mapping<T>(item: Parser<T>): Parser<Readonly<Record<string, T>>> {
  return (value, where) => {
    if (!isObject(value)) throw misfit(where, value, "an object");
    return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, item(v, `${where}.${key}`)]));
  };
}

export function record<T extends Record<string, Parser<unknown>>>(
  fields: T,
): Parser<{ readonly [K in keyof T]: Parsed<T[K]> }> {
  return (value, where) => {
    if (!isObject(value)) throw misfit(where, value, "an object");
    const missing = Object.keys(fields).filter((key) => !Object.hasOwn(value, key) && !("absentMeans" in fields[key]));
    if (missing.length)
      throw new UserError(where, `no ${missing.join(", ")}`, "every key of the format", REMEDY, "bad-bundle");
    const unknown = Object.keys(value).filter((key) => !Object.hasOwn(fields, key));
    if (unknown.length) {
      throw new UserError(where, `unknown ${unknown.join(", ")}`, "only the keys of the format", REMEDY, "bad-bundle");
    }
    const entries = Object.entries(fields).map(([key, parse]) => {
      const isPresent = Object.hasOwn(value, key) || !("absentMeans" in parse);
      return [key, isPresent ? parse(value[key], `${where}.${key}`) : parse.absentMeans];
    });
    return Object.fromEntries(entries);
  };
}

/** Parse the UTF-8 JSON of a file; `wanted` describes in errors what it should contain. */
export function parseJson(bytes: Uint8Array, where: string, wanted: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new UserError(where, `text that is not JSON (${(error as Error).message})`, wanted, REMEDY);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function misfit(where: string, value: unknown, wanted: string): UserError {
  const shown = JSON.stringify(value) ?? String(value);
  return new UserError(where, shown.length <= 60 ? shown : `${shown.slice(0, 57)}...`, wanted, REMEDY, "bad-bundle");
}
