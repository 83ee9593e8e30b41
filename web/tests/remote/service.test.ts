import { afterEach, expect, test, vi } from "vitest";
import type { Notice } from "../../src/engine";
import { connectService, tellNotices } from "../../src/remote/service";

const scaled = { code: "scaled", values: { subject: "image", from: "50x50", to: "24x16", how: "cropped" } } as const;

afterEach(() => vi.unstubAllGlobals());

function told(drawn: Parameters<typeof tellNotices>[0]): [string, Notice | undefined][] {
  const heard: [string, Notice | undefined][] = [];
  tellNotices(drawn, (text, notice) => heard.push([text, notice]));
  return heard;
}

test("notices of the service have their codes, and what only Python says is a sentence", () => {
  expect(told({ notices: ["it was scaled", "it is grey"], notice_codes: [scaled, null] })).toEqual([
    ["it was scaled", { ...scaled, text: "it was scaled" }],
    ["it is grey", undefined],
  ]);
});

test("a service that tells no codes is heard all the same", () => {
  expect(told({ notices: ["it was scaled"] })).toEqual([["it was scaled", undefined]]);
});

test("opening a model of the service that is given up ends its requests", async () => {
  const hang = (_: string, init?: RequestInit) =>
    new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
  vi.stubGlobal("fetch", hang);
  const abort = new AbortController();
  const opening = connectService({ bundleUrl: "/v1/models/doodle", signal: abort.signal });
  abort.abort();
  await expect(opening).rejects.toMatchObject({ name: "AbortError" });
});
