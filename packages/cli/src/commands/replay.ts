import type { Command } from "commander";

import { withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import { print } from "../output.js";

export function addReplay(program: Command): void {
  withStoreOptions(
    program
      .command("replay <id>")
      .description("run a finished execution again, as a new attempt")
      .option("--reason <text>", "kept with the new attempt"),
  ).action(replay);
}

async function replay(
  executionId: string,
  options: StoreOptions & { readonly reason?: string },
): Promise<void> {
  const { reason } = options;
  const { publicState } = await withStore(
    options,
    { create: false },
    (client) =>
      client.replay({
        executionId,
        requestedBy: "flowfabric command",
        ...(reason === undefined ? {} : { reason }),
      }),
  );
  print(`replayed ${executionId}: ${publicState}`);
}
