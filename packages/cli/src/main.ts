#!/usr/bin/env node
/** The `flowfabric` command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. */
import { readFileSync } from "node:fs";

import { Command, CommanderError } from "commander";
import { z } from "zod";

import { addCancel } from "./commands/cancel.js";
import { addDemo } from "./commands/demo.js";
import { addInspect } from "./commands/inspect.js";
import { addList } from "./commands/list.js";
import { addMigrate } from "./commands/migrate.js";
import { addReplay } from "./commands/replay.js";
import { addResult } from "./commands/result.js";
import { addSignal } from "./commands/signal.js";
import { addSubmit } from "./commands/submit.js";
import { addSuspended } from "./commands/suspended.js";
import { addTail } from "./commands/tail.js";
import { addWaitpoints } from "./commands/waitpoints.js";
import { addWorker } from "./commands/worker.js";
import { describeFailure, EXIT_USAGE, exitCodeOf } from "./errors.js";
import { remark } from "./output.js";

const { version } = z
  .object({ version: z.string() })
  .parse(
    JSON.parse(
      readFileSync(new URL("../package.json", import.meta.url), "utf8"),
    ),
  );

const program = new Command("flowfabric")
  .description("Durable executions on the store you already have")
  .version(version)
  .exitOverride()
  .configureOutput({
    outputError: (text, write) =>
      write(text.replace(/^error: /, "flowfabric: ")),
  });
for (const add of [
  addDemo,
  addSubmit,
  addResult,
  addWorker,
  addInspect,
  addList,
  addCancel,
  addReplay,
  addTail,
  addSuspended,
  addWaitpoints,
  addSignal,
  addMigrate,
])
  add(program);

// `flowfabric list | head` closes the pipe early; that is no error of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Already printed, help and version included.
    process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  } else {
    remark(`flowfabric: ${describeFailure(error)}`);
    if (process.argv.includes("--verbose")) console.error(error);
    process.exitCode = exitCodeOf(error);
  }
}
