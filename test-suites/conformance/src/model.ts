/** What the random clients were told: enough to pick their next victims, and to judge the store's answers by. */
import type {
  ClaimedExecution,
  CreateExecutionInput,
  CreateExecutionResult,
  DeliverSignalResult,
  EngineBackend,
  ExecutionId,
  Grant,
  StreamFrames,
  SubmitManyResult,
} from "@flowfabric/core";

import type { Target } from "./suspension-builders.js";

type Accepted = Extract<DeliverSignalResult, { kind: "accepted" }>;

/** What an operator's completion brings, whichever attempt it ends. */
export const OVERRIDE_RESULT = new TextEncoder().encode("by an operator");

/** What every completion of this attempt brings: the result can be told from the attempt that ended well. */
export function expectedPayload(
  executionId: string,
  attemptIndex: number,
): Uint8Array | undefined {
  return attemptIndex % 2 === 0
    ? new TextEncoder().encode(`${executionId}/${attemptIndex}`)
    : undefined;
}

export class World {
  readonly clients: readonly EngineBackend[];
  readonly lanes: readonly string[];
  readonly ids: ExecutionId[] = [];
  /** All claims that were answered, in the order of their answers. */
  readonly claims: ClaimedExecution[] = [];
  /** Answers to submissions with a key, by lane and namespace and key. */
  readonly keyed = new Map<string, CreateExecutionResult[]>();
  /** Waitpoints by whoever was given their token; the newest last. */
  readonly targets: Target[] = [];
  /** Answers to signals that were accepted. */
  readonly signals: (Target & Accepted)[] = [];
  /** Accepted frames, id and text, by execution and attempt. */
  readonly frames = new Map<string, (readonly [string, string])[]>();
  /** How streams were found closed. */
  readonly ends = new Map<
    string,
    {
      readonly closedAtMs: number;
      readonly closedReason: StreamFrames["closedReason"];
    }
  >();
  readonly #grants = new Map<string, Grant>();

  constructor(clients: readonly EngineBackend[], lanes: readonly string[]) {
    this.clients = clients;
    this.lanes = lanes;
  }

  submitted(
    input: CreateExecutionInput,
    answer: CreateExecutionResult | SubmitManyResult,
  ): void {
    if (answer.kind === "rejected")
      throw new Error(`a good submission was rejected: ${answer.code}`);
    if (answer.kind === "created") this.ids.push(answer.executionId);
    if (input.idempotencyKey === undefined) return;
    const scope = `${input.laneId} ${input.namespace} ${input.idempotencyKey}`;
    this.keyed.set(scope, [...(this.keyed.get(scope) ?? []), answer]);
  }

  acquired(claimed: ClaimedExecution): void {
    this.claims.push(claimed);
  }

  appended(claimed: ClaimedExecution, id: string, text: string): void {
    const name = `${claimed.executionId} attempt ${claimed.attemptIndex}`;
    this.frames.set(name, [...(this.frames.get(name) ?? []), [id, text]]);
  }

  granted(grant: Grant): void {
    this.#grants.set(grant.executionId, grant);
  }

  targeted(targets: readonly Target[]): void {
    this.targets.push(...targets);
  }

  delivered(target: Target, answer: DeliverSignalResult): void {
    if (answer.kind === "accepted") this.signals.push({ ...target, ...answer });
  }

  /** Recent ones mostly. */
  targetAt(pick: number): Target | undefined {
    const { length } = this.targets;
    if (length === 0) return undefined;
    const reach = pick % 5 === 0 ? length : Math.min(length, 4);
    return this.targets[length - 1 - (pick % reach)];
  }

  grantOf(executionId: string): Grant | undefined {
    return this.#grants.get(executionId);
  }

  idAt(pick: number): ExecutionId | undefined {
    return this.ids[pick % Math.max(1, this.ids.length)];
  }

  /** Recent claims mostly, sometimes one long lost. */
  claimAt(pick: number): ClaimedExecution | undefined {
    const { length } = this.claims;
    if (length === 0) return undefined;
    const reach = pick % 5 === 0 ? length : Math.min(length, 6);
    return this.claims[length - 1 - (pick % reach)];
  }
}
