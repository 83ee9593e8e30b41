/** A static host on localhost that does what hosts do when things go wrong. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import type { Files } from "./sample_bundle";

/** How an answer goes wrong. What is left out is as it should be. */
export interface Fault {
  /** Break the connection after so many bytes of the answer. */
  readonly cutAfter?: number;
  /** Answer with this status and nothing else. */
  readonly status?: number;
  /** Serve these bytes. */
  readonly bytes?: Uint8Array;
  readonly type?: string;
  readonly gzips?: boolean;
  /** Answer every range request with the whole file, as hosts without ranges do. */
  readonly knowsNoRanges?: boolean;
  /** Keep the connection open and send no more. */
  readonly hangsAfter?: number;
}

export class MisbehavingHost {
  /** Faults by path: the first is of the next answer. When they are used up, all is well; `always` does not end. */
  readonly faults = new Map<string, Fault[]>();
  readonly always = new Map<string, Fault>();
  /** Each request's path, with its range. */
  readonly requests: string[] = [];
  private constructor(
    readonly files: Files,
    private readonly server: Server,
  ) {}

  static async start(files: Files): Promise<MisbehavingHost> {
    const server = createServer();
    const host = new MisbehavingHost(files, server);
    server.on("request", (request, response) => host.answer(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return host;
  }

  /** Under a sub-path. */
  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/some/where/`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "").replace("/some/where/", "");
    const { range } = request.headers;
    this.requests.push(range === undefined ? path : `${path} ${range}`);
    const fault = this.faults.get(path)?.shift() ?? this.always.get(path) ?? {};
    const whole = fault.bytes ?? this.files[path];
    if (whole === undefined || fault.status !== undefined) {
      response.writeHead(fault.status ?? 404).end();
      return;
    }
    const start = range === undefined || fault.knowsNoRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(range)?.[1]);
    if (start >= whole.length) {
      response.writeHead(416).end();
      return;
    }
    const part = whole.subarray(start);
    const body = fault.gzips ? gzipSync(part) : part;
    const headers: Record<string, string | number> = {
      "content-type": fault.type ?? "application/octet-stream",
      "content-length": body.length,
    };
    if (fault.gzips) headers["content-encoding"] = "gzip";
    if (start) headers["content-range"] = `bytes ${start}-${whole.length - 1}/${whole.length}`;
    response.writeHead(start ? 206 : 200, headers);
    const sent = fault.cutAfter ?? fault.hangsAfter;
    if (sent === undefined) response.end(body);
    else response.write(body.subarray(0, sent), () => fault.hangsAfter ?? setTimeout(() => response.destroy(), 5));
  }
}
