import type { Command } from "commander";

import { RefusedError } from "../errors.js";
import { withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import { print } from "../output.js";

export function addCancel(program: Command): void {
  withStoreOptions(
    program
      .command("cancel <id>")
      .description(
        "end an execution now; one that is running is fenced at once",
      )
      .option(
        "--reason <text>",
        "kept with the execution",
        "cancelled from the command line",
      ),
  ).action(cancel);
}

async function cancel(
  executionId: string,
  options: StoreOptions & { readonly reason: string },
): Promise<void> {
  const { reason } = options;
  const answer = await withStore(options, { create: false }, (client) =>
    client.cancel({ executionId, reason }),
  );
  // Cancelling twice is done; anything else that had ended stays what it was.
  if (answer.publicState !== "cancelled")
    throw new RefusedError(
      `${executionId} had already ended as ${answer.publicState}; nothing was changed`,
    );
  print(`cancelled ${executionId}`);
}
