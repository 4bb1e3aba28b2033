import {
  PUBLIC_STATES,
  type ExecutionInfo,
  type PublicState,
} from "@flowfabric/core";
import { InvalidArgumentError, type Command } from "commander";

import { withStore } from "../open.js";
import {
  collectList,
  wholeNumber,
  withStoreOptions,
  type StoreOptions,
} from "../options.js";
import {
  formatDuration,
  paint,
  plural,
  print,
  remark,
  tableLines,
} from "../output.js";
import { stateText } from "../states.js";

interface ListOptions extends StoreOptions {
  readonly lane?: string[];
  readonly state?: PublicState[];
  readonly limit: number;
  readonly cursor?: string;
  readonly json?: true;
}

export function addList(program: Command): void {
  withStoreOptions(
    program
      .command("list")
      .description("list executions, oldest first")
      .option("--lane <list>", "only these lanes", collectList)
      .option(
        "--state <list>",
        `only these states: ${PUBLIC_STATES.join(", ")}`,
        collectStates,
      )
      .option("--limit <n>", "at most this many", wholeNumber(1, 1_000), 50)
      .option("--cursor <text>", "go on where an earlier page ended")
      .option("--json", "one JSON object per line"),
  ).action(list);
}

function collectStates(
  text: string,
  earlier: PublicState[] = [],
): PublicState[] {
  const states = collectList(text).map((name) => {
    const state = PUBLIC_STATES.find((known) => known === name);
    if (state !== undefined) return state;
    throw new InvalidArgumentError(
      `There is no state '${name}'; the states are ${PUBLIC_STATES.join(", ")}.`,
    );
  });
  return [...earlier, ...states];
}

async function list(options: ListOptions): Promise<void> {
  const { lane, state, limit, cursor, json } = options;
  await withStore(options, { create: false }, async (client, backend) => {
    const page = await client.list({
      limit,
      ...(lane === undefined ? {} : { lanes: lane }),
      ...(state === undefined ? {} : { publicStates: state }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    const found = await Promise.all(
      page.executions.map((executionId) =>
        backend.readExecutionInfo({ executionId }),
      ),
    );
    // One that retention removed between the two reads is simply gone.
    const infos = found.filter((info) => info !== undefined);
    if (json) for (const info of infos) print(JSON.stringify(info));
    else printTable(infos);
    if (page.nextCursor !== undefined)
      remark(`there are more: add --cursor ${page.nextCursor}`);
  });
}

function printTable(infos: readonly ExecutionInfo[]): void {
  if (infos.length === 0) return remark("no executions match");
  const nowMs = Date.now();
  const rows = infos.map((info) => [
    info.executionId,
    info.executionKind,
    info.laneId,
    stateText(info.publicState),
    String(info.startedAtMs === undefined ? 0 : info.currentAttemptIndex + 1),
    formatDuration(Math.max(0, nowMs - info.createdAtMs)),
    info.failureReason ?? info.cancellationReason ?? info.blockingDetail ?? "",
  ]);
  const columns = [
    { heading: "ID" },
    { heading: "KIND" },
    { heading: "LANE" },
    { heading: "STATE" },
    { heading: "ATTEMPTS", align: "right" as const },
    { heading: "AGE", align: "right" as const },
    { heading: "NOTE" },
  ];
  for (const line of tableLines(columns, rows)) print(line);
  if (process.stdout.isTTY)
    print(paint("dim", plural(infos.length, "execution")));
}
