/** The script that the worker runs. */

import type { Call, Port, Reply } from "./protocol";
import { serveEngine } from "./serve";

serveEngine(self as unknown as Port<Call, Reply>);
