import { expect, test } from "vitest";
import { chooseMemory, MemoryFullError, noticeOfMemory } from "../../src/engine/memory";
import { MEMORY } from "./sample_bundle";

const GIB = 2 ** 30;
const plan = {
  resident: { ...MEMORY.resident, peak_bytes: 3.1e9 },
  reduced: { ...MEMORY.reduced, peak_bytes: 2.2e9 },
};

test("all weights stay on a GPU that looks large enough", () => {
  expect(chooseMemory("auto", plan, GIB)).toEqual({ name: "resident", ...plan.resident });
});

test("a GPU that grants WebGPU's smallest buffers only gets the reduced mode for gigabytes of weights", () => {
  expect(chooseMemory("auto", plan, GIB / 4).name).toBe("reduced");
  expect(chooseMemory("auto", MEMORY, GIB / 4).name).toBe("resident"); // a small model fits everywhere
});

test("a choice is kept, whatever the GPU grants", () => {
  expect(chooseMemory("resident", plan, GIB / 4)).toEqual({ name: "resident", ...plan.resident });
  expect(chooseMemory("reduced", plan, 4 * GIB)).toEqual({ name: "reduced", ...plan.reduced });
});

test("before the download, a GPU that looks too small for the reduced mode too is told so, and no other", () => {
  const large = { resident: { ...plan.resident, peak_bytes: 9.8e9 }, reduced: { ...plan.reduced, peak_bytes: 6.64e9 } };
  expect(noticeOfMemory(large, GIB / 4)?.text).toBe(
    "GPU memory: got about 2.2 GB, by the browser's hints, wanted 6.7 GB for the model. " +
      "It is downloaded and tried all the same; take a bundle with weights of fewer bits if drawing fails.",
  );
  expect(noticeOfMemory(large, GIB)).toBeUndefined();
  expect(noticeOfMemory(MEMORY, GIB / 4)).toBeUndefined();
});

test("a full GPU is told how much the model takes, and of the reduced mode where that is left", () => {
  const resident = new MemoryFullError({ name: "resident", ...plan.resident });
  expect(resident.message).toBe(
    "GPU memory: got none left, wanted 3.1 GB for the model; close other tabs and programs that use the GPU and try " +
      "again, or save GPU memory in the settings: the model is loaded again",
  );
  expect(new MemoryFullError({ name: "reduced", ...plan.reduced }).remedy).not.toContain("settings");
});
