/** The worker's script. */

import type { Call, Port, Reply } from "./protocol.ts";
import { serveEngine } from "./serve.ts";

serveEngine(self as unknown as Port<Call, Reply>);
