/**
 * The step behind the analysis: the report is written in words, which are shown as they come, and published once somebody
 * approves. While it waits for that, no worker holds it.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import {
  TERMINAL_EVENT_TYPES,
  type EngineBackend,
  type EventType,
  type ExecutionId,
} from "@flowfabric/core";
import type {
  Client,
  ExecutionResult,
  OutputOf,
  SignalToken,
} from "@flowfabric/sdk";

import { RefusedError } from "../errors.js";
import { describeAddress, formatAddress, type StoreAddress } from "../open.js";
import { paint, print } from "../output.js";
import { Crew } from "./crew.js";
import {
  APPROVED,
  publicationKeyOf,
  PublishReport,
  TEXT_IS_WRITTEN,
} from "./definition.js";
import { LEASE_TTL_MS } from "./work.js";
import type { ReportFigures } from "./written-report.js";

export interface PublicationPlan {
  readonly client: Client;
  readonly backend: EngineBackend;
  readonly address: StoreAddress;
  readonly folder: string;
  readonly lane: string;
  /** Whoever runs the demo is asked, instead of a second process. */
  readonly manual: boolean;
  /** Where the published text goes. */
  readonly path: string;
  readonly interrupt: AbortSignal;
}

const MAIN = fileURLToPath(new URL("../main.js", import.meta.url));
const PASSWORD = /:\/\/[^@/]*:[^@/]+@/;
/** Long enough to be seen waiting. */
const MOMENT_MS = 500;
const EVENTS_BLOCK_MS = 10_000;

/** Repeating it costs nothing: a report of the same figures has been published already. */
export async function publishReport(
  plan: PublicationPlan,
  figures: ReportFigures,
): Promise<void> {
  const { client, lane, path } = plan;
  const { executionId } = await client.submit(PublishReport, {
    input: figures,
    idempotencyKey: publicationKeyOf(figures),
    laneId: lane,
  });
  const query = { executionId, timeoutMs: 0 };
  const before = await client.result(PublishReport, query);
  const isReused = before.kind !== "pending";
  if (!isReused) await runPublication(plan, executionId);
  const end = isReused ? before : await client.result(PublishReport, query);
  sayEnd(end, path, isReused);
}

/** A worker of its own, and beside it what shows the text. */
async function runPublication(
  plan: PublicationPlan,
  executionId: ExecutionId,
): Promise<void> {
  const crew = new Crew(
    {
      store: formatAddress(plan.address),
      folder: plan.folder,
      lane: plan.lane,
      concurrency: 1,
      leaseTtlMs: LEASE_TTL_MS,
      paceScale: 1,
    },
    // The engine refuses an instance id that an earlier run's worker may still have.
    executionId.slice(-6) + Date.now().toString(36),
    () => {},
  );
  print();
  print(paint("bold", "The report, while it is written:"));
  print();
  const signal = AbortSignal.any([plan.interrupt, crew.failure]);
  try {
    crew.hire("publisher");
    await show(plan, executionId, signal);
    signal.throwIfAborted();
  } finally {
    await crew.drain();
  }
}

async function show(
  plan: PublicationPlan,
  executionId: ExecutionId,
  signal: AbortSignal,
): Promise<void> {
  let isWhole = false;
  for await (const event of plan.client.stream({ executionId }, { signal })) {
    if (event.kind === "end" && !isWhole)
      print(
        paint("red", `\n✗ this attempt ended: ${event.reason}; another begins`),
      );
    if (event.kind !== "frame") continue;
    isWhole = event.frameType === TEXT_IS_WRITTEN;
    if (!isWhole) process.stdout.write(event.text);
    else if (
      await isSuspended(plan.backend, executionId, event.attemptIndex, signal)
    )
      await askForApproval(plan, executionId, signal);
  }
}

/** Told by the execution's own history. @returns false where the attempt ended instead, or goes on already */
async function isSuspended(
  backend: EngineBackend,
  executionId: ExecutionId,
  attempt: number,
  signal: AbortSignal,
): Promise<boolean> {
  let after = 0;
  while (!signal.aborted) {
    const { events } = await backend.tailEvents({
      executionId,
      after,
      blockMs: EVENTS_BLOCK_MS,
      signal,
    });
    for (const { attemptIndex = 0, type } of events) {
      if (attemptIndex > attempt || isTerminal(type)) return false;
      if (attemptIndex < attempt || type !== "suspended") continue;
      const state = await backend.readExecutionState({ executionId });
      return state === "suspended";
    }
    after = events.at(-1)?.seq ?? after;
  }
  return false;
}

function isTerminal(type: EventType): boolean {
  return TERMINAL_EVENT_TYPES.some((terminal) => terminal === type);
}

async function askForApproval(
  plan: PublicationPlan,
  executionId: ExecutionId,
  signal: AbortSignal,
): Promise<void> {
  const { client, manual, address } = plan;
  const { entries } = await client.admin.listPendingWaitpoints({ executionId });
  const [waitpoint] = entries;
  const token = waitpoint && (await client.signalToken(waitpoint));
  // Somebody was quicker.
  if (token === undefined) return;
  print();
  print(
    paint("yellow", "Suspended until somebody approves; no worker holds it."),
  );
  if (manual) {
    const signalCommand = `npx flowfabric signal ${token.reveal()} --source ${process.env["USER"] ?? "me"} --backend '${describeAddress(address)}'`;
    print("In another terminal, to publish it:");
    print(`  ${signalCommand} --name ${APPROVED}`);
    if (PASSWORD.test(formatAddress(address)))
      print("with the password of the store, which is not shown,");
    print(
      "and any other --name to reject it. Ctrl-C: the next run asks again.",
    );
  } else await approveBySecondProcess(address, token, signal);
}

/** By the command that `--manual` shows. */
async function approveBySecondProcess(
  address: StoreAddress,
  token: SignalToken,
  signal: AbortSignal,
): Promise<void> {
  await sleep(MOMENT_MS, undefined, { signal });
  const command = ["signal", token.reveal()];
  const child = spawn(
    process.execPath,
    [MAIN, ...command, "--name", APPROVED, "--source", "second-process"],
    {
      env: { ...process.env, FLOWFABRIC_DB: formatAddress(address) },
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (complaint += text));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0 && !signal.aborted)
    throw new RefusedError(`the approval was refused: ${complaint.trim()}`);
  print(
    paint("dim", `A second process (pid ${child.pid}) signals '${APPROVED}'.`),
  );
}

function sayEnd(
  end: ExecutionResult<OutputOf<typeof PublishReport>>,
  path: string,
  isReused: boolean,
): void {
  const before = isReused ? " by an earlier run" : "";
  if (end.kind === "completed") {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, end.output.text);
    print(
      paint(
        "green",
        `✓ Published${before}, approved by ${end.output.approvedBy}: ${path}`,
      ),
    );
  } else {
    const why = "reason" in end ? `: ${end.reason}` : "";
    print(paint("red", `✗ Not published${before}, ${end.kind}${why}`));
  }
}
