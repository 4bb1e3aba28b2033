/** The frame of every program: its arguments, its store, and the line to the test that started it. */
import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { z } from "zod";

import { openStore } from "./open.js";
import type { Command, Report } from "./reports.js";

const Arguments = z.looseObject({ store: z.string() });

/** Opens the store and runs; afterwards the process ends with 0, by itself or by `exit`. */
export async function runProgram<S extends z.ZodType>(
  options: S,
  main: (backend: EngineBackend, options: z.output<S>) => Promise<void>,
): Promise<void> {
  const given: unknown = JSON.parse(process.argv[2] ?? "{}");
  const parsed = options.parse(given);
  // Nobody is left to stop a program whose test is gone.
  const orphaned = () => process.exit(1);
  process.on("disconnect", orphaned);
  report({ kind: "opening" });
  const backend = await openStore(Arguments.parse(given).store);
  await main(backend, parsed);
  await backend.close();
  await sent;
  process.off("disconnect", orphaned);
  process.disconnect();
}

let sent = Promise.resolve();
/** The last report may be long; to disconnect before it has left would cut it off. */
export function report(message: Report): void {
  if (process.send === undefined) return;
  const leaves = new Promise<void>((resolve) => {
    process.send!(message, undefined, undefined, () => resolve());
  });
  sent = sent.then(() => leaves);
}

export function onCommand(
  kind: Command["kind"],
  run: () => Promise<void>,
): void {
  process.on("message", (command: Command) => {
    if (command.kind === kind) void run();
  });
}

/** How a call was answered: `done`, or the code it was refused with. Everything else is a fault. */
export async function answerOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "done";
  } catch (error) {
    if (isEngineError(error)) return error.code;
    throw error;
  }
}
