/**
 * What the library's C runtime asks of its host (WASI preview 1): an output and an end. The form is tvmjs' LibraryProvider.
 * mlc_controlnet/toolchain/link_wasm.py says what the two functions have to do.
 */

const STDERR = 2;

export interface LibraryProvider {
  readonly imports: Record<string, Record<string, CallableFunction>>;
  start(instance: WebAssembly.Instance): void;
}

/** `log` and `logError` get what the library writes to stdout and stderr, line by line. */
export function createWasi(log: (line: string) => void, logError: (line: string) => void): LibraryProvider {
  let memory: WebAssembly.Memory;
  const decoder = new TextDecoder();
  const unfinished = new Map<number, string>(); // the line that each file descriptor has begun

  const wasi_snapshot_preview1 = {
    fd_write(fd: number, vectors: number, count: number, written: number) {
      const view = new DataView(memory.buffer); // anew in each call: growing detaches older views
      let text = unfinished.get(fd) ?? "";
      let bytes = 0;
      for (let i = 0; i < count; i++) {
        const pointer = view.getUint32(vectors + 8 * i, true);
        const length = view.getUint32(vectors + 8 * i + 4, true);
        text += decoder.decode(new Uint8Array(memory.buffer, pointer, length));
        bytes += length;
      }
      const lines = text.split("\n");
      unfinished.set(fd, lines.pop() ?? "");
      for (const line of lines) (fd === STDERR ? logError : log)(line);
      view.setUint32(written, bytes, true);
      return 0;
    },
    proc_exit(code: number) {
      throw new Error(`the library ended itself with exit code ${code}`);
    },
  };

  return {
    imports: { wasi_snapshot_preview1 },
    start(instance) {
      memory = instance.exports.memory as WebAssembly.Memory;
      (instance.exports._initialize as () => void)();
    },
  };
}
