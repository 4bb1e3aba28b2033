import { join } from "node:path";

import type { Command } from "commander";

import { runDemo, type DemoOptions } from "../demo/run.js";
import { EXIT_INTERRUPTED } from "../errors.js";
import { backendOption, wholeNumber } from "../options.js";
import { print } from "../output.js";

/** Beyond this a run takes longer than anybody wants to watch. */
const FILES_MAX = 2_000;

export function addDemo(program: Command): void {
  program
    .command("demo [folder]")
    .description(
      "analyse the text files of a folder with worker processes, kill one, show that nothing is lost or done twice, and publish a report once it is approved",
    )
    .addOption(
      backendOption("the demo's own store").default(
        join(".flowfabric", "demo.db"),
      ),
    )
    .option(
      "--report <path>",
      "the HTML report (default: report.html beside the store's file, else in .flowfabric)",
    )
    .option("--workers <n>", "worker processes", wholeNumber(1, 16), 3)
    .option("--no-kill", "let every worker live")
    .option("--manual", "approve of the report's publication yourself")
    .option("--fresh", "forget the results of earlier runs")
    .option(
      "--limit <n>",
      "at most this many files",
      wholeNumber(1, 100_000),
      FILES_MAX,
    )
    .option("--verbose", "show the stack and the causes of an error")
    .action(demo);
}

async function demo(
  folder: string | undefined,
  options: DemoOptions,
): Promise<void> {
  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  try {
    process.exitCode = await runDemo(folder ?? ".", options, interrupt.signal);
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    print("Stopped. The next run goes on from here.");
    process.exitCode = EXIT_INTERRUPTED;
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}
