import { afterEach, expect, test, vi } from "vitest";
import { codeOf, type Notice } from "../../src/engine";
import { connectService, tellNotices } from "../../src/remote/service";
import { makeManifest } from "../engine/sample_bundle";

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

test("a service that goes away in the middle of a picture is told as one that does not answer", async () => {
  const manifest = JSON.stringify(makeManifest());
  const [model] = [{ name: "circles", bundle_sha256: "", target: "llvm", samplers: [] }];
  const began = new TextEncoder().encode('event: job\ndata: {"place": 0}\n\n');
  vi.stubGlobal("location", { host: "localhost" });
  vi.stubGlobal("fetch", async (address: string) => {
    if (address.endsWith("manifest")) return new Response(manifest);
    if (address.endsWith("models")) return Response.json({ models: [model] });
    return new Response(
      new ReadableStream({
        start: (controller) => {
          controller.enqueue(began);
          setTimeout(() => controller.error(new TypeError("network error")), 20);
        },
      }),
    );
  });
  const engine = await connectService({ bundleUrl: "/v1/models/circles" });
  const error = await engine.generate({ prompt: "gold" }).catch((thrown) => thrown);
  expect(codeOf(error)).toBe("no-connection");
  expect(String(error)).toContain("network error");
});
