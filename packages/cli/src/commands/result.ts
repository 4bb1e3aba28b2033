import type { Client, ExecutionResult } from "@flowfabric/sdk";
import type { Command } from "commander";

import { RefusedError } from "../errors.js";
import { withStore } from "../open.js";
import {
  parseDuration,
  withStoreOptions,
  type StoreOptions,
} from "../options.js";

export function addResult(program: Command): void {
  withStoreOptions(
    program
      .command("result <id>")
      .description("write the stored result to stdout, byte for byte")
      .option(
        "--wait [duration]",
        "wait until it has ended, at most this long (10s, 5m)",
        parseDuration,
      ),
  ).action(result);
}

async function result(
  executionId: string,
  options: StoreOptions & { readonly wait?: number | true },
): Promise<void> {
  await withStore(options, { create: false }, async (client) =>
    writeResult(
      executionId,
      await awaitEnd(client, executionId, options.wait ?? 0),
    ),
  );
}

/** @param wait milliseconds, or `true` for as long as it takes */
export function awaitEnd(
  client: Client,
  executionId: string,
  wait: number | true,
): Promise<ExecutionResult<Uint8Array | undefined>> {
  return client.result({
    executionId,
    ...(wait === true ? {} : { timeoutMs: wait }),
  });
}

/** Output to stdout; every other end is a refusal that says why. */
export function writeResult(
  executionId: string,
  end: ExecutionResult<Uint8Array | undefined>,
): void {
  if (end.kind === "pending")
    throw new RefusedError(
      `${executionId} has not ended yet, it is ${end.publicState}; wait longer with --wait`,
    );
  if (end.kind !== "completed")
    throw new RefusedError(
      `${executionId} ${end.kind === "skipped" ? "was skipped" : end.kind}${reasonOf(end)}`,
    );
  if (end.output === undefined) return;
  process.stdout.write(end.output);
  // A terminal's prompt belongs on a line of its own; a pipe gets the bytes alone.
  if (process.stdout.isTTY) process.stdout.write("\n");
}

function reasonOf(end: {
  readonly reason?: string;
  readonly category?: string;
}): string {
  const category = end.category === undefined ? "" : ` (${end.category})`;
  return end.reason === undefined || end.reason === ""
    ? category
    : `${category}: ${end.reason}`;
}
