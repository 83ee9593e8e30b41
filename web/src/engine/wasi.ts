/**
 * The two WASI preview 1 functions that the library's C runtime imports: one writes text, the other ends the program.
 * They come in the form of tvmjs' LibraryProvider. mlc_controlnet/toolchain/link_wasm.py specifies both.
 */

const STDERR = 2;

/** The imports of a library, in the form that tvmjs expects. */
export interface LibraryProvider {
  readonly imports: Record<string, Record<string, CallableFunction>>;
  /** `imported`: the library's memory if it does not export one. */
  start(instance: WebAssembly.Instance, imported?: WebAssembly.Memory): void;
}

/** Create the imports. `log` receives each line that the library writes to stdout, `logError` each line for stderr. */
export function createWasi(log: (line: string) => void, logError: (line: string) => void): LibraryProvider {
  let memory: WebAssembly.Memory;
  const decoder = new TextDecoder();
  const unfinished = new Map<number, string>(); // the last, incomplete line of each file descriptor

  const wasi_snapshot_preview1 = {
    fd_write(fd: number, vectors: number, count: number, written: number) {
      const view = new DataView(memory.buffer); // a new view for each call, because growing detaches older views
      let text = unfinished.get(fd) ?? "";
      let bytes = 0;
      for (let i = 0; i < count; i++) {
        const pointer = view.getUint32(vectors + 8 * i, true);
        const length = view.getUint32(vectors + 8 * i + 4, true);
        text += decoder.decode(new Uint8Array(memory.buffer, pointer, length).slice()); // decoders refuse shared memory
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
    start(instance, imported) {
      memory = imported ?? (instance.exports.memory as WebAssembly.Memory);
      (instance.exports._initialize as () => void)();
    },
  };
}
