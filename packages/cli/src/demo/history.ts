/** What the store says about each file after the run: the only source of the summary and the report. */
import {
  TERMINAL_EVENT_TYPES,
  type AttemptRecord,
  type EngineBackend,
  type ExecutionEvent,
  type ExecutionId,
  type PublicState,
} from "@flowfabric/core";
import type { Client } from "@flowfabric/sdk";

import { RefusedError } from "../errors.js";
import type { Analysis } from "./analyse.js";
import { AnalyseFile } from "./definition.js";
import type { SubmittedFile } from "./submit.js";

/**
 * `completed` and `failed` ended the execution, `retried` failed and was tried again, `lost` ended with its worker,
 * `open` still runs.
 */
type AttemptOutcome = "completed" | "retried" | "failed" | "lost" | "open";

export interface Attempt {
  readonly index: number;
  readonly type: AttemptRecord["attemptType"];
  readonly instanceId: string;
  readonly startedAtMs: number;
  /** Of a lost attempt: when it was taken over. */
  readonly endedAtMs: number | undefined;
  readonly outcome: AttemptOutcome;
  readonly reason: string | undefined;
}

export interface FileHistory extends Pick<SubmittedFile, "origin"> {
  readonly path: string;
  readonly executionId: ExecutionId;
  readonly state: PublicState;
  readonly analysis: Analysis | undefined;
  /** Why it failed or was cancelled. */
  readonly reason: string | undefined;
  readonly category: string | undefined;
  readonly attempts: readonly Attempt[];
  /** From being claimable to being claimed, once per claim; takeovers are not among them. */
  readonly pickupsMs: readonly number[];
  readonly completionEvents: number;
  /** One per run of the execution; a replayed one ends again. */
  readonly expectedCompletionEvents: number;
}

export async function readHistory(
  client: Client,
  backend: EngineBackend,
  submitted: SubmittedFile,
): Promise<FileHistory> {
  const { file, executionId, origin } = submitted;
  const ref = { executionId };
  const [snapshot, records, { events }, end] = await Promise.all([
    client.inspect(executionId),
    backend.listAttempts(ref),
    backend.readEvents(ref),
    client.result(AnalyseFile, { executionId, timeoutMs: 0 }),
  ]);
  if (snapshot === undefined)
    throw new RefusedError(`the store lost the execution of ${file.path}`);
  const terminalEvents = events.filter(({ type }) =>
    TERMINAL_EVENT_TYPES.some((terminal) => terminal === type),
  );
  return {
    path: file.path,
    origin,
    executionId,
    state: snapshot.publicState,
    analysis: end.kind === "completed" ? end.output : undefined,
    reason: snapshot.failureReason ?? snapshot.cancellationReason,
    category: snapshot.failureCategory,
    attempts: records.map((record) =>
      attemptOf(record, records, snapshot.publicState),
    ),
    pickupsMs: pickups(events),
    completionEvents: terminalEvents.length,
    expectedCompletionEvents: 1 + snapshot.replayCount,
  };
}

function attemptOf(
  record: AttemptRecord,
  all: readonly AttemptRecord[],
  state: PublicState,
): Attempt {
  const next = all.find(
    ({ attemptIndex }) => attemptIndex === record.attemptIndex + 1,
  );
  return {
    index: record.attemptIndex,
    type: record.attemptType,
    instanceId: record.workerInstanceId,
    startedAtMs: record.startedAtMs,
    endedAtMs: record.endedAtMs,
    outcome: outcomeOf(record, next, state),
    reason: record.failureReason ?? record.reclaimReason,
  };
}

function outcomeOf(
  record: AttemptRecord,
  next: AttemptRecord | undefined,
  state: PublicState,
): AttemptOutcome {
  switch (record.attemptState) {
    case "ended_success":
      return "completed";
    case "interrupted_reclaimed":
      return "lost";
    case "ended_failure":
      return next?.attemptType === "retry" || state === "delayed"
        ? "retried"
        : "failed";
    case "ended_cancelled":
      return "failed";
    case "started":
    case "suspended":
      return "open";
  }
}

/** A lapsed lease is left out: its wait is the lease time, which says nothing about picking up. */
function pickups(events: readonly ExecutionEvent[]): number[] {
  const waits: number[] = [];
  let claimableAtMs: number | undefined;
  for (const { type, atMs, toState, data } of events) {
    switch (type) {
      case "retry_scheduled":
      case "delayed":
        claimableAtMs =
          typeof data?.["delayUntilMs"] === "number"
            ? data["delayUntilMs"]
            : undefined;
        break;
      case "lease_expired":
      case "lease_revoked":
        claimableAtMs = undefined;
        break;
      case "claimed":
      case "resumed":
      case "reclaimed":
        if (claimableAtMs !== undefined)
          waits.push(Math.max(0, atMs - claimableAtMs));
        claimableAtMs = undefined;
        break;
      default:
        // Promotion is written late, with the claim; the due time above is when it could have been claimed.
        if (toState?.eligibilityState === "eligible_now")
          claimableAtMs ??= atMs;
    }
  }
  return waits;
}
