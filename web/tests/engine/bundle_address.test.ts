import { afterEach, expect, test, vi } from "vitest";
import { fileUrl, resolveBundleUrl } from "../../src/engine/bundle_address";

afterEach(() => vi.unstubAllGlobals());

test.each([
  ["https://host.example/sd/", "https://host.example/sd/", ""],
  ["https://host.example/sd", "https://host.example/sd/", ""],
  ["https://host.example/sd/manifest.json", "https://host.example/sd/", ""],
  ["https://host.example/sd?token=s3cret", "https://host.example/sd/", "?token=s3cret"],
  ["https://host.example/sd/manifest.json?token=a/b#part", "https://host.example/sd/", "?token=a/b"],
  ["./bundle/", "https://site.example/demo/bundle/", ""],
  ["/", "https://site.example/", ""],
])("%s is the folder %s", (given, folder, query) => {
  vi.stubGlobal("location", { href: "https://site.example/demo/?memory=reduced" });
  expect(resolveBundleUrl(given)).toEqual({ folder, query });
  expect(resolveBundleUrl(new URL(given, location.href))).toEqual({ folder, query });
});

test("a name with signs of its own is one file", () => {
  const address = resolveBundleUrl("https://host.example/sd/");
  expect(fileUrl(address, "libraries/v1#5?%20.wasm")).toBe("https://host.example/sd/libraries/v1%235%3F%2520.wasm");
});

test.each([undefined, null, "", 7, {}, "http://"])("%s is no address", (given) => {
  vi.stubGlobal("location", { href: "https://site.example/demo/" });
  expect(() => resolveBundleUrl(given as string)).toThrow(
    /^bundleUrl: got .*, wanted the address of a bundle's folder;/,
  );
});

test("without a page an address must be absolute", () => {
  expect(() => resolveBundleUrl("./bundle/")).toThrow("bundleUrl: got ./bundle/, wanted the absolute address");
});
