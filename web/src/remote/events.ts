/** Server-sent events of an answer to a POST, which EventSource cannot read. */

export interface ServerEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Yield the events as they come. A caller that leaves the loop closes the connection. `broken` names one that breaks off. */
export async function* readEvents(
  answer: Response,
  broken: (error: unknown) => unknown = (error) => error,
): AsyncGenerator<ServerEvent> {
  const reader = (answer.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream() as never).getReader();
  let text = "";
  try {
    for (;;) {
      const read = reader.read().catch((error: unknown) => {
        throw broken(error);
      });
      const { done, value } = (await read) as { done: boolean; value?: string };
      if (done) return;
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const lines = part.split("\n");
        const of = (field: string) => lines.find((line) => line.startsWith(field))?.slice(field.length) ?? "";
        yield { name: of("event: "), data: JSON.parse(of("data: ")) };
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
