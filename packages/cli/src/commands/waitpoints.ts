import type { PendingWaitpointInfo } from "@flowfabric/core";
import type { Client } from "@flowfabric/sdk";
import type { Command } from "commander";

import { withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import { formatInstant, print, remark, tableLines } from "../output.js";

interface WaitpointsOptions extends StoreOptions {
  readonly tokens?: true;
  readonly json?: true;
}

interface Listed extends PendingWaitpointInfo {
  readonly signalToken?: string;
}

export function addWaitpoints(program: Command): void {
  withStoreOptions(
    program
      .command("waitpoints <id>")
      .description("list where an execution can be signalled")
      .option(
        "--tokens",
        "with the token of each: whoever has it can signal, so keep it to yourself",
      )
      .option("--json", "one JSON object per line"),
  ).action(waitpoints);
}

async function waitpoints(
  executionId: string,
  options: WaitpointsOptions,
): Promise<void> {
  const found = await withStore(options, { create: false }, async (client) => {
    const listed = await listAll(client, executionId);
    if (options.tokens === undefined) return listed;
    return Promise.all(listed.map((entry) => withToken(client, entry)));
  });
  if (options.json) for (const entry of found) print(JSON.stringify(entry));
  else printTable(found, options.tokens === true);
}

async function listAll(
  client: Client,
  executionId: string,
): Promise<PendingWaitpointInfo[]> {
  const all: PendingWaitpointInfo[] = [];
  let after: PendingWaitpointInfo["waitpointId"] | undefined;
  do {
    const page = await client.admin.listPendingWaitpoints({
      executionId,
      limit: 1_000,
      ...(after === undefined ? {} : { after }),
    });
    all.push(...page.entries);
    after = page.nextCursor;
  } while (after !== undefined);
  return all;
}

async function withToken(
  client: Client,
  entry: PendingWaitpointInfo,
): Promise<Listed> {
  const token = await client.signalToken(entry);
  // Closed since, or its key was rotated out.
  return token === undefined
    ? entry
    : { ...entry, signalToken: token.reveal() };
}

function printTable(found: readonly Listed[], tokens: boolean): void {
  if (found.length === 0) return remark("no waitpoint takes signals");
  const columns = [
    { heading: "ID" },
    { heading: "KEY" },
    { heading: "STATE" },
    { heading: "SIGNALS", align: "right" as const },
    { heading: "WAITS FOR" },
    { heading: "UNTIL" },
    ...(tokens ? [{ heading: "TOKEN" }] : []),
  ];
  const rows = found.map((entry) => [
    entry.waitpointId,
    entry.waitpointKey,
    entry.state,
    String(entry.signalCount),
    waitsFor(entry),
    entry.expiresAtMs === undefined ? "" : formatInstant(entry.expiresAtMs),
    ...(tokens ? [entry.signalToken ?? ""] : []),
  ]);
  for (const line of tableLines(columns, rows)) print(line);
}

function waitsFor({ state, requiredSignalNames }: Listed): string {
  if (state === "pending") return "its suspension";
  const [first] = requiredSignalNames;
  if (first === undefined) return "any signal";
  if (first === "__operator_only__") return "an operator";
  return first === "__timeout_only__"
    ? "its timeout"
    : requiredSignalNames.join(", ");
}
