import { Worker } from "@flowfabric/sdk";
import type { Command } from "commander";

import { loadHandlers } from "../handlers-module.js";
import { openStore, parseAddress } from "../open.js";
import {
  collectList,
  parseDuration,
  wholeNumber,
  withStoreOptions,
  type StoreOptions,
} from "../options.js";
import { plural, remark } from "../output.js";

interface WorkerOptions extends StoreOptions {
  readonly lanes?: string[];
  readonly concurrency: number;
  readonly capabilities?: string[];
  readonly workerId?: string;
  readonly leaseTtl: number;
  readonly drainTimeout: number;
}

export function addWorker(program: Command): void {
  withStoreOptions(
    program
      .command("worker <module>")
      .description(
        "run the handlers of a module until SIGTERM or Ctrl-C, then drain",
      )
      .option(
        "--lanes <list>",
        "queues to serve (default: those of the module's definitions, else 'default')",
        collectList,
      )
      .option("--concurrency <n>", "tasks at once", wholeNumber(1), 1)
      .option("--capabilities <list>", "what this worker can do", collectList)
      .option("--worker-id <name>", "pool name, shared by replicas")
      .option(
        "--lease-ttl <duration>",
        "how long its work is kept when it falls silent (default: 30s)",
        parseDuration,
        30_000,
      )
      .option(
        "--drain-timeout <duration>",
        "how long running tasks may take after a stop (default: 30s)",
        parseDuration,
        30_000,
      )
      .addHelpText(
        "after",
        `
The module's default export is a function that gets the worker, or entries
{ definition, handler } or { kind, handler }: one, an array, or an object of them.

  import { defineExecution } from "@flowfabric/sdk";
  export default {
    definition: defineExecution({ kind: "greet", input: z.object({ name: z.string() }) }),
    handler: async (input, task) => ({ text: \`Hello \${input.name}\` }),
  };`,
      ),
  ).action(runWorker);
}

async function runWorker(
  module: string,
  options: WorkerOptions,
): Promise<void> {
  const handlers = await loadHandlers(module);
  const { capabilities, workerId } = options;
  const lanes =
    options.lanes ?? (handlers.lanes.length > 0 ? handlers.lanes : ["default"]);
  await using backend = await openStore(parseAddress(options.backend), {
    create: true,
  });
  await using worker = new Worker({
    backend,
    namespace: options.namespace,
    lanes,
    maxConcurrentTasks: options.concurrency,
    leaseTtlMs: options.leaseTtl,
    drainTimeoutMs: options.drainTimeout,
    capabilities,
    workerId,
    logger: {
      debug: () => {},
      info: () => {},
      warn: (message) => remark(`warning: ${message}`),
      error: (message) => remark(`error: ${message}`),
    },
  });
  await handlers.register(worker);

  const kinds =
    handlers.kinds.length > 0 ? `${handlers.kinds.join(", ")} ` : "";
  remark(
    `${worker.config.workerInstanceId} runs ${kinds}on ${lanes.length === 1 ? "lane" : "lanes"} ${lanes.join(", ")}, ${plural(options.concurrency, "task")} at once; Ctrl-C drains`,
  );
  const { completed, failed, abandoned } = await worker.run();
  remark(
    `drained: ${completed} completed, ${failed} failed, ${abandoned} handed back`,
  );
}
