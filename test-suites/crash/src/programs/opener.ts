/** Opens the store, submits one execution, and waits to be killed. */
import { z } from "zod";

import { report, runProgram } from "../program.js";

await runProgram(z.object({}), async (backend) => {
  await backend.createExecution({ executionKind: "work" });
  report({ kind: "ready" });
  await new Promise((resolve) => setTimeout(resolve, 60_000));
});
