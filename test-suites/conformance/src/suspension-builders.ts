/** Executions that wait for signals, and signals for them. Each says only what matters. */
import {
  allOfWaitpoints,
  type DeliverSignalInput,
  type EngineBackend,
  type ExecutionId,
  type Handle,
  type ResumeCondition,
  type SuspendInput,
  type SuspendOutcome,
  type WaitpointToken,
} from "@flowfabric/core";

import { running, uuid, type Taken } from "./builders.js";

export const KID = "k1";
export const SECRET_HEX = "0f".repeat(32);
export const OTHER_SECRET_HEX = "a5".repeat(32);

/** Tokens can be made from now on. */
export async function keyed(backend: EngineBackend): Promise<void> {
  await backend.seedWaitpointHmacSecret({ kid: KID, secretHex: SECRET_HEX });
}

const byName = (name: string) => ({ kind: "byName", name }) as const;

/** Satisfied by any signal on this key, or by one of this name. */
export function single(waitpointKey: string, name?: string): ResumeCondition {
  const matcher =
    name === undefined ? ({ kind: "wildcard" } as const) : byName(name);
  return { kind: "single", waitpointKey, matcher };
}

export function allOf(...members: ResumeCondition[]): ResumeCondition {
  return { kind: "composite", body: { kind: "allOf", members } };
}

export function count(
  n: number,
  countKind: "distinctWaitpoints" | "distinctSignals" | "distinctSources",
  waitpoints: readonly string[],
  name?: string,
): ResumeCondition {
  const matcher = name === undefined ? {} : { matcher: byName(name) };
  return {
    kind: "composite",
    body: { kind: "count", n, countKind, waitpoints, ...matcher },
  };
}

export type SuspendArgs = Omit<SuspendInput, "handle">;

/** On fresh waitpoints of these keys, until each has a signal, unless `change` says otherwise. */
export function suspendArgs(
  change: Partial<SuspendArgs> & { readonly keys?: readonly string[] } = {},
): SuspendArgs {
  const { keys = ["approve"], ...rest } = change;
  return {
    suspensionId: uuid(),
    waitpoints: keys.map((waitpointKey) => ({
      kind: "fresh",
      waitpointId: uuid(),
      waitpointKey,
    })),
    resumeCondition:
      keys.length === 1 ? single(keys[0]!) : allOfWaitpoints(keys),
    reasonCode: "waiting_for_signal",
    ...rest,
  };
}

/** Where a signal goes to. */
export interface Target {
  readonly executionId: ExecutionId;
  readonly waitpointId: string;
  readonly token: WaitpointToken;
}

export interface Suspended {
  readonly executionId: ExecutionId;
  readonly laneId: string;
  readonly args: SuspendArgs;
  readonly outcome: Extract<SuspendOutcome, { kind: "suspended" }>;
  /** What the suspend gave, good for observing only. */
  readonly handle: Handle;
  /** The lease that it gave up. */
  readonly before: Taken;
  /** In the order of the call. */
  readonly targets: readonly Target[];
  readonly target: Target;
}

export async function suspended(
  backend: EngineBackend,
  change: Parameters<typeof suspendArgs>[0] = {},
  input: Parameters<typeof running>[1] = {},
): Promise<Suspended> {
  await keyed(backend);
  return await suspendRunning(backend, await running(backend, input), change);
}

export async function suspendRunning(
  backend: EngineBackend,
  before: Taken,
  change: Parameters<typeof suspendArgs>[0] = {},
): Promise<Suspended> {
  const args = suspendArgs(change);
  const outcome = await backend.suspend({ handle: before.handle, ...args });
  if (outcome.kind !== "suspended")
    throw new Error(`expected to be suspended, got ${outcome.kind}`);
  const targets = targetsOf(before.executionId, outcome);
  return {
    executionId: before.executionId,
    laneId: before.laneId,
    args,
    outcome,
    handle: outcome.handle,
    before,
    targets,
    target: targets[0]!,
  };
}

export function targetsOf(
  executionId: ExecutionId,
  { details }: SuspendOutcome,
): Target[] {
  return [details, ...details.additionalWaitpoints].map(
    ({ waitpointId, waitpointToken }) => ({
      executionId,
      waitpointId,
      token: waitpointToken,
    }),
  );
}

/** A pending waitpoint of a running attempt. */
export async function waitpointOf(
  backend: EngineBackend,
  claimed: Taken,
  waitpointKey = "approve",
  expiresInMs = 60_000,
): Promise<Target> {
  const { waitpointId, hmacToken } = await backend.createWaitpoint({
    handle: claimed.handle,
    waitpointKey,
    expiresInMs,
  });
  return { executionId: claimed.executionId, waitpointId, token: hmacToken };
}

/** Suspend on a waitpoint made before, for one signal on its key unless `change` says otherwise. */
export function onPending(
  target: Target,
  change: Partial<SuspendArgs> = {},
): SuspendArgs {
  return suspendArgs({
    waitpoints: [{ kind: "usePending", waitpointId: target.waitpointId }],
    ...change,
  });
}

export function signalInput(
  { executionId, waitpointId, token }: Target,
  change: Partial<DeliverSignalInput> = {},
): DeliverSignalInput {
  return {
    executionId,
    waitpointId,
    waitpointToken: token,
    signalId: uuid(),
    signalName: "go",
    ...change,
  };
}

/** What one signal did: its effect, or `duplicate`. */
export async function effectOf(
  backend: EngineBackend,
  target: Target,
  change: Partial<DeliverSignalInput> = {},
): Promise<string> {
  const answer = await backend.deliverSignal(signalInput(target, change));
  return answer.kind === "accepted" ? answer.effect : answer.kind;
}

/** Outcomes with their tokens as text: compared as objects, redacted ones are all alike. */
export function plain(outcome: SuspendOutcome): object {
  const reveal = ({
    waitpointToken,
    ...rest
  }: {
    waitpointToken: WaitpointToken;
  }) => ({
    ...rest,
    waitpointToken: waitpointToken.reveal(),
  });
  return {
    ...outcome,
    details: {
      ...reveal(outcome.details),
      additionalWaitpoints: outcome.details.additionalWaitpoints.map(reveal),
    },
  };
}
