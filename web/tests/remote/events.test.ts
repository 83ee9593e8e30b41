import { expect, test } from "vitest";
import { readEvents } from "../../src/remote/events";
import { isServiceModel, serviceModelUrl } from "../../src/remote/service";

function answerOf(...chunks: string[]): Response {
  const bytes = chunks.map((chunk) => new TextEncoder().encode(chunk));
  return new Response(
    new ReadableStream({
      start(controller) {
        for (const chunk of bytes) controller.enqueue(chunk);
        controller.close();
      },
    }),
  );
}

test("events come whole, however the network cuts them", async () => {
  const text = 'event: job\ndata: {"place": 0}\n\nevent: progress\ndata: {"step": 3}\n\n';
  for (const cut of [1, 7, 33, 34, 35, text.length - 1]) {
    const events = [];
    for await (const event of readEvents(answerOf(text.slice(0, cut), text.slice(cut)))) events.push(event);
    expect(events).toEqual([
      { name: "job", data: { place: 0 } },
      { name: "progress", data: { step: 3 } },
    ]);
  }
});

test("a caller that leaves closes the connection", async () => {
  let isCancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('event: a\ndata: {"n": 1}\n\n')),
    cancel: () => {
      isCancelled = true;
    },
  });
  for await (const { name } of readEvents(new Response(body))) {
    expect(name).toBe("a");
    break;
  }
  expect(isCancelled).toBe(true);
});

test("a service's model is told from a bundle by its address", () => {
  const url = serviceModelUrl("./v1/", "two words/of one");
  expect(url).toBe("./v1/models/two%20words%2Fof%20one");
  expect(isServiceModel(url)).toBe(true);
  expect(isServiceModel("./bundle/")).toBe(false);
  expect(isServiceModel("https://example.org/v1/models/x/manifest.json")).toBe(false);
});
