/**
 * Executions in the state a test needs. Each says only what matters; each execution gets a lane of its own unless the
 * test names one, so that a claim for one of them never takes another.
 */
import {
  decodeHandle,
  type ClaimedExecution,
  type CreateExecutionInput,
  type EngineBackend,
  type ExecutionId,
  type HandlePayload,
  type LeaseFence,
} from "@flowfabric/core";

import type { Bench } from "./harness.js";

export const WORKER = {
  workerId: "worker-a",
  workerInstanceId: "worker-a-1",
} as const;
/** Another process of the same pool. */
export const SIBLING = {
  workerId: "worker-a",
  workerInstanceId: "worker-a-2",
} as const;
export const OTHER_WORKER = {
  workerId: "worker-b",
  workerInstanceId: "worker-b-1",
} as const;

export const UNKNOWN_ID = "{fp:7}:00000000-0000-4000-8000-000000000000";
export const LEASE_TTL_MS = 30_000;
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;

let uuids = 0;
/** A UUID no other call of this process returns; the prefix keeps apart what runs beside it. */
const uuidPrefix = (process.pid % 0x1_0000).toString(16).padStart(4, "0");
export function uuid(): string {
  uuids += 1;
  return `0199${uuidPrefix}-0000-7000-8000-${uuids.toString(16).padStart(12, "0")}`;
}

let lanes = 0;
export function lane(): string {
  lanes += 1;
  return `lane-${lanes}`;
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes as read back, of whichever class a backend gives them. */
export function textOf(read: Uint8Array | undefined): string | undefined {
  return read === undefined ? undefined : new TextDecoder().decode(read);
}

type Submission = Partial<CreateExecutionInput>;

/** Ready for a claim unless `input` says otherwise. */
export async function submitted(
  backend: EngineBackend,
  input: Submission = {},
): Promise<{ readonly executionId: ExecutionId; readonly laneId: string }> {
  const laneId = input.laneId ?? lane();
  const answer = await backend.createExecution({
    executionKind: "test",
    ...input,
    laneId,
  });
  if (answer.kind !== "created")
    throw new Error(`expected a new execution, got ${JSON.stringify(answer)}`);
  return { executionId: answer.executionId, laneId };
}

export interface Taken extends ClaimedExecution {
  readonly fence: Required<LeaseFence>;
}

interface TakeOptions {
  readonly worker?: { workerId: string; workerInstanceId: string };
  readonly leaseTtlMs?: number;
  readonly capabilities?: readonly string[];
}

/** What one claim on this lane gets. */
export async function taken(
  backend: EngineBackend,
  laneId: string,
  options: TakeOptions = {},
): Promise<Taken> {
  const claimed = await backend.claim({
    laneId,
    capabilities: { tokens: options.capabilities ?? [] },
    policy: {
      ...(options.worker ?? WORKER),
      leaseTtlMs: options.leaseTtlMs ?? LEASE_TTL_MS,
    },
  });
  if (claimed === undefined) throw new Error(`nothing to claim on ${laneId}`);
  return { ...claimed, fence: fenceOf(claimed) };
}

export function fenceOf(claimed: ClaimedExecution): Required<LeaseFence> {
  const { leaseId, leaseEpoch, attemptId } = claimed;
  return { leaseId, leaseEpoch, attemptId };
}

/** What the handle carries. */
export function payloadOf(
  backend: EngineBackend,
  claimed: ClaimedExecution,
): HandlePayload {
  return decodeHandle(claimed.handle, backend.backendLabel());
}

/** Leased and running. */
export async function running(
  backend: EngineBackend,
  input: Submission = {},
  options: TakeOptions = {},
): Promise<Taken> {
  const { laneId } = await submitted(backend, input);
  return taken(backend, laneId, options);
}

/** Running on paper: the lease has lapsed and nobody has written that yet. */
export async function lapsed(
  bench: Bench,
  input: Submission = {},
): Promise<Taken> {
  const claimed = await running(bench.backend, input);
  await bench.passTime(LEASE_TTL_MS);
  return claimed;
}

/** The lease has lapsed and that is written. */
export async function markedLapsed(
  bench: Bench,
  input: Submission = {},
): Promise<Taken> {
  const claimed = await lapsed(bench, input);
  const { executionId } = claimed;
  const { kind } = await bench.backend.markLeaseExpiredIfDue({ executionId });
  if (kind !== "markedExpired") throw new Error(`expected a mark, got ${kind}`);
  return claimed;
}

export async function revoked(
  bench: Bench,
  input: Submission & { hold?: boolean } = {},
): Promise<Taken> {
  const { hold = false, ...submission } = input;
  const claimed = await running(bench.backend, submission);
  const { executionId } = claimed;
  await bench.backend.revokeLease({ executionId, hold });
  return claimed;
}

/** Handed back by its holder and ready again: the attempt waits to be resumed. */
export async function parked(
  backend: EngineBackend,
  input: Submission = {},
): Promise<Taken> {
  const claimed = await running(backend, input);
  await backend.delay({ handle: claimed.handle, delayUntilMs: 1 });
  return claimed;
}

/** Taken over once: `stale` holds nothing any more, `current` does. */
export async function reclaimed(
  bench: Bench,
  input: Submission = {},
): Promise<{ readonly stale: Taken; readonly current: Taken }> {
  const stale = await lapsed(bench, input);
  const current = await taken(bench.backend, stale.laneId, {
    worker: OTHER_WORKER,
  });
  return { stale, current };
}

export async function completed(
  backend: EngineBackend,
  input: Submission = {},
  payload?: Uint8Array,
): Promise<Taken> {
  const claimed = await running(backend, input);
  await backend.complete({
    handle: claimed.handle,
    ...(payload === undefined ? {} : { payload }),
  });
  return claimed;
}

export async function failed(
  backend: EngineBackend,
  input: Submission = {},
): Promise<Taken> {
  const claimed = await running(backend, input);
  await backend.fail({
    handle: claimed.handle,
    reason: { message: "broken" },
    classification: "permanent",
  });
  return claimed;
}

/** A live worker, so that reclaim grants may name it. */
export async function registered(
  backend: EngineBackend,
  input: {
    worker?: { workerId: string; workerInstanceId: string };
    lanes?: readonly string[];
    capabilities?: readonly string[];
    namespace?: string;
    livenessTtlMs?: number;
  } = {},
): Promise<void> {
  await backend.registerWorker({
    ...(input.worker ?? WORKER),
    lanes: [...(input.lanes ?? ["default"])],
    capabilities: input.capabilities ?? [],
    namespace: input.namespace ?? "default",
    livenessTtlMs: input.livenessTtlMs ?? HOUR_MS,
  });
}
