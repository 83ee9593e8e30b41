/** Calls of a worker that is started for the first of them. */

import { t } from "../text";
import { PageError } from "../text/page_error";

interface Waiting {
  readonly resolve: (reply: never) => void;
  readonly reject: (error: unknown) => void;
}

/** What every worker of an annotator answers. */
export type WorkerReply<Answer> = { readonly id: number } & ({ readonly answer: Answer } | { readonly error: string });

export class WorkerCalls<Call extends object> {
  private worker: Worker | undefined;
  private readonly waiting = new Map<number, Waiting>();
  private calls = 0;

  constructor(
    private readonly start: () => Worker,
    /** What it runs, for the error that it could not be fetched. */
    private readonly script: string,
  ) {}

  call<Answer>(call: Call, transfer: Transferable[] = []): Promise<Answer> {
    this.worker ??= this.listen(this.start());
    const id = ++this.calls;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker?.postMessage({ ...call, id }, transfer);
    });
  }

  private notLoaded(): PageError {
    return new PageError(
      () => t.value.annotatorScript,
      () => t.value.annotatorScriptMissing(this.script),
    );
  }

  private listen(worker: Worker): Worker {
    worker.onmessage = ({ data }: MessageEvent<WorkerReply<never>>) => {
      const call = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ("answer" in data) call?.resolve(data.answer);
      else call?.reject(new Error(data.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.worker = undefined; // the next annotator tries again
      const error = event.message ? new Error(`the annotators' worker failed: ${event.message}`) : this.notLoaded();
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    };
    return worker;
  }
}
