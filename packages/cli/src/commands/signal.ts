import type { Command } from "commander";

import { withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import { print } from "../output.js";
import { readPayload } from "../payload.js";

interface SignalOptions extends StoreOptions {
  readonly name: string;
  readonly payload?: string;
  readonly raw?: true;
  readonly source?: string;
  readonly key?: string;
  readonly json?: true;
}

export function addSignal(program: Command): void {
  withStoreOptions(
    program
      .command("signal <token>")
      .description(
        "send a signal to the waitpoint that a token belongs to; see waitpoints --tokens",
      )
      .option("--name <text>", "what the condition may ask for", "signal")
      .option(
        "--payload <json>",
        "what goes with it, as JSON; @file reads a file, - reads stdin",
      )
      .option(
        "--raw",
        "take the payload as it is, without checking that it is JSON",
      )
      .option("--source <text>", "who sends it, where senders are counted")
      .option(
        "--key <text>",
        "idempotency key: a second signal with the same key is the first",
      )
      .option("--json", "print the engine's answer as JSON"),
  ).action(signal);
}

async function signal(token: string, options: SignalOptions): Promise<void> {
  const { name, source, key } = options;
  const payload = readPayload("--payload", options.payload, options);
  const answer = await withStore(options, { create: false }, (client) =>
    client.signal(token, {
      name,
      ...(payload === undefined ? {} : { payload }),
      ...(source === undefined
        ? {}
        : { sourceType: "cli", sourceIdentity: source }),
      idempotencyKey: key,
    }),
  );
  if (options.json) print(JSON.stringify(answer));
  else if (answer.kind === "triggeredResume") print("resumed");
  else if (answer.kind === "duplicate")
    print(`duplicate of ${answer.existingSignalId}`);
  else print(`accepted: ${(answer.effect ?? "kept").replaceAll("_", " ")}`);
}
