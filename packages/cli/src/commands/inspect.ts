import type {
  AttemptRecord,
  ExecutionEvent,
  ExecutionSnapshot,
} from "@flowfabric/core";
import type { Command } from "commander";

import { RefusedError } from "../errors.js";
import { describeAddress, parseAddress, withStore } from "../open.js";
import { withStoreOptions, type StoreOptions } from "../options.js";
import {
  formatDuration,
  formatInstant,
  paint,
  print,
  showBytes,
  tableLines,
} from "../output.js";
import { stateText } from "../states.js";

interface Inspection {
  readonly snapshot: ExecutionSnapshot;
  readonly input: Uint8Array;
  readonly result: Uint8Array | undefined;
  readonly attempts: readonly AttemptRecord[];
  readonly events: readonly ExecutionEvent[];
}

export function addInspect(program: Command): void {
  withStoreOptions(
    program
      .command("inspect <id>")
      .description(
        "show an execution: its state, input, result, attempts and events",
      )
      .option("--json", "one JSON object; input and result as text"),
  ).action(inspect);
}

async function inspect(
  executionId: string,
  options: StoreOptions & { readonly json?: true },
): Promise<void> {
  const inspection = await withStore(
    options,
    { create: false },
    async (client, backend): Promise<Inspection> => {
      const snapshot = await client.inspect(executionId);
      if (snapshot === undefined)
        throw new RefusedError(
          `there is no execution ${executionId} in ${describeAddress(parseAddress(options.backend))}, namespace ${options.namespace}; it may be mistyped, or removed after its retention`,
        );
      const ref = { executionId };
      const [context, result, attempts, { events }] = await Promise.all([
        backend.readExecutionContext(ref),
        backend.getExecutionResult(ref),
        backend.listAttempts(ref),
        backend.readEvents(ref),
      ]);
      return {
        snapshot,
        input: context.inputPayload,
        result,
        attempts,
        events,
      };
    },
  );
  if (options.json) printJson(inspection);
  else printSections(inspection);
}

function printJson({ input, result, ...rest }: Inspection): void {
  const readable = {
    ...rest,
    input: showBytes(input),
    ...(result === undefined ? {} : { result: showBytes(result) }),
  };
  print(JSON.stringify(readable, null, 2));
}

function printSections(inspection: Inspection): void {
  const { snapshot, input, result, attempts, events } = inspection;
  print(paint("bold", snapshot.executionId));
  for (const [name, value] of facts(snapshot))
    print(`  ${paint("dim", name.padEnd(12))} ${value}`);
  printPayload("Input", input);
  if (result !== undefined) printPayload("Result", result);
  printAttempts(attempts);
  printEvents(events);
}

function facts(snapshot: ExecutionSnapshot): [string, string][] {
  const lease = snapshot.currentLease;
  const { progress } = snapshot;
  const tags = Object.entries(snapshot.tags);
  const rows: [string, string | undefined][] = [
    ["state", `${stateText(snapshot.publicState)}${because(snapshot)}`],
    ["kind", snapshot.executionKind],
    ["lane", `${snapshot.laneId}, priority ${snapshot.priority}`],
    ["namespace", snapshot.namespace],
    ["flow", snapshot.flowId],
    ["created", formatInstant(snapshot.createdAtMs)],
    ["not before", instant(snapshot.delayUntilMs)],
    ["started", instant(snapshot.startedAtMs)],
    ["ended", instant(snapshot.completedAtMs)],
    ["deadline", instant(snapshot.executionDeadlineAtMs)],
    [
      "counts",
      `${snapshot.totalAttemptCount} attempts, ${snapshot.retryCount} retries, ${snapshot.leaseReclaimTotal} taken over, ${snapshot.replayCount} replays`,
    ],
    [
      "lease",
      lease &&
        `${lease.workerInstanceId}, epoch ${lease.leaseEpoch}, until ${formatInstant(lease.expiresAtMs)}`,
    ],
    [
      "progress",
      progress &&
        `${progress.percent === undefined ? "" : `${progress.percent} % `}${progress.message ?? ""}`,
    ],
    [
      "requires",
      snapshot.requiredCapabilities.length > 0
        ? snapshot.requiredCapabilities.join(", ")
        : undefined,
    ],
    [
      "tags",
      tags.length > 0
        ? tags.map(([key, value]) => `${key}=${value}`).join(", ")
        : undefined,
    ],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== undefined);
}

function because(snapshot: ExecutionSnapshot): string {
  const { failureReason, failureCategory, cancellationReason } = snapshot;
  if (failureReason !== undefined)
    return ` (${failureCategory ?? "failure"}): ${failureReason}`;
  if (cancellationReason !== undefined) return `: ${cancellationReason}`;
  const { blockingReason, blockingDetail } = snapshot;
  if (blockingReason === undefined || blockingReason === "none") return "";
  return `, ${blockingReason.replaceAll("_", " ")}${blockingDetail === undefined || blockingDetail === "" ? "" : `: ${blockingDetail}`}`;
}

function instant(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : formatInstant(ms);
}

const SHOWN_CHARACTERS = 2_000;

function printPayload(title: string, bytes: Uint8Array): void {
  if (bytes.length === 0 && title === "Input") return;
  print();
  print(paint("bold", `${title}, ${bytes.length} bytes`));
  const text = showBytes(bytes);
  const shown = text.slice(0, SHOWN_CHARACTERS);
  for (const line of shown.split("\n")) print(`  ${line}`);
  if (shown.length < text.length)
    print(paint("dim", "  … (all of it: --json, or the command result)"));
}

function printAttempts(attempts: readonly AttemptRecord[]): void {
  if (attempts.length === 0) return;
  print();
  print(paint("bold", "Attempts"));
  const rows = attempts.map((attempt) => [
    `  ${attempt.attemptIndex}`,
    attempt.attemptType,
    attempt.attemptState.replaceAll("_", " "),
    attempt.workerInstanceId,
    formatInstant(attempt.startedAtMs),
    attempt.endedAtMs === undefined
      ? ""
      : formatDuration(attempt.endedAtMs - attempt.startedAtMs),
    attempt.failureReason ??
      attempt.reclaimReason ??
      attempt.replayReason ??
      "",
  ]);
  const columns = [
    { heading: "  #" },
    { heading: "TYPE" },
    { heading: "STATE" },
    { heading: "WORKER" },
    { heading: "STARTED" },
    { heading: "TOOK", align: "right" as const },
    { heading: "WHY" },
  ];
  for (const line of tableLines(columns, rows)) print(line);
}

function printEvents(events: readonly ExecutionEvent[]): void {
  print();
  print(paint("bold", "Events"));
  const startMs = events[0]?.atMs ?? 0;
  const rows = events.map((event) => [
    `  ${event.seq}`,
    `+${formatDuration(event.atMs - startMs)}`,
    event.type,
    event.actor,
    [event.reason ?? "", event.data === undefined ? "" : dataText(event.data)]
      .filter((part) => part !== "")
      .join(" "),
  ]);
  const columns = [
    { heading: "  #" },
    { heading: "AFTER", align: "right" as const },
    { heading: "EVENT" },
    { heading: "BY" },
    { heading: "DETAIL" },
  ];
  for (const line of tableLines(columns, rows)) print(line);
}

/** Ids that only tell machines something; --json has them all. */
const LEFT_OUT = new Set(["attemptId", "leaseId", "workerId"]);

function dataText(data: NonNullable<ExecutionEvent["data"]>): string {
  return Object.entries(data)
    .filter(([key]) => !LEFT_OUT.has(key))
    .map(
      ([key, value]) =>
        `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
    )
    .join(" ");
}
