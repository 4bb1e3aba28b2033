import type { SuspendedExecutionEntry } from "@flowfabric/core";
import type { Command } from "commander";

import { withStore } from "../open.js";
import {
  wholeNumber,
  withBackendOptions,
  type BackendOptions,
} from "../options.js";
import {
  formatDuration,
  formatInstant,
  print,
  remark,
  tableLines,
} from "../output.js";

interface SuspendedOptions extends BackendOptions {
  readonly limit: number;
  readonly cursor?: string;
  readonly json?: true;
}

export function addSuspended(program: Command): void {
  withBackendOptions(
    program
      .command("suspended")
      .description(
        "list suspended executions of all namespaces, those that wait longest first",
      )
      .option("--limit <n>", "at most this many", wholeNumber(1, 1_000), 50)
      .option("--cursor <text>", "go on where an earlier page ended")
      .option("--json", "one JSON object per line"),
  ).action(suspended);
}

async function suspended(options: SuspendedOptions): Promise<void> {
  const { limit, cursor, json } = options;
  const store = { ...options, namespace: "default" };
  const page = await withStore(store, { create: false }, (client) =>
    client.admin.listSuspended({
      limit,
      ...(cursor === undefined ? {} : { cursor }),
    }),
  );
  if (json) for (const entry of page.entries) print(JSON.stringify(entry));
  else printTable(page.entries);
  if (page.nextCursor !== undefined)
    remark(`there are more: add --cursor ${page.nextCursor}`);
}

function printTable(entries: readonly SuspendedExecutionEntry[]): void {
  if (entries.length === 0) return remark("nothing is suspended");
  const nowMs = Date.now();
  const rows = entries.map((entry) => [
    entry.executionId,
    entry.reason.replaceAll("_", " "),
    formatDuration(Math.max(0, nowMs - entry.suspendedAtMs)),
    entry.timeoutAtMs === undefined ? "" : formatInstant(entry.timeoutAtMs),
  ]);
  const columns = [
    { heading: "ID" },
    { heading: "REASON" },
    { heading: "FOR", align: "right" as const },
    { heading: "TIMEOUT" },
  ];
  for (const line of tableLines(columns, rows)) print(line);
}
