/** Calls everything at random on whatever is there, together with others of its kind, and counts the answers. */
import {
  isEngineError,
  type ClaimedExecution,
  type EngineBackend,
  type ErrorCode,
  type ExecutionId,
} from "@flowfabric/core";
import fc from "fast-check";
import { z } from "zod";

import { LANES, Step, type Whose } from "../hammer-steps.js";
import { Waits } from "../hammer-waits.js";
import { report, runProgram } from "../program.js";
import type { Tally } from "../reports.js";

const Options = z.object({ seed: z.number(), durationMs: z.number() });

/** What a caller may be told about an execution that others change at the same time. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "execution_not_active",
  "execution_not_eligible",
  "execution_not_terminal",
  "grant_already_exists",
  "lease_expired",
  "lease_revoked",
  "max_replays_exhausted",
  "stale_lease",
  // Of waits and signals
  "execution_not_suspended",
  "pending_waitpoint_expired",
  "target_not_signalable",
  "waitpoint_closed",
  "waitpoint_not_pending",
  // Of output
  "stale_owner_cannot_append",
  "stream_closed",
  // Its key has been rotated out since: in its grace, past it, forgotten.
  "invalid_token",
  "token_expired",
  "waitpoint_not_token_bound",
]);

/** Enough to meet others on the same execution, few enough to meet them often. */
const KNOWN_MAX = 200;
const HELD_MAX = 40;
const CONCURRENT_CALLS = 4;

class Hammer {
  readonly #backend: EngineBackend;
  readonly #known: ExecutionId[] = [];
  readonly #held: ClaimedExecution[] = [];
  readonly #claimant = {
    workerId: "hammer",
    workerInstanceId: `hammer-${process.pid}`,
  };

  readonly waits: Waits;

  constructor(backend: EngineBackend) {
    this.#backend = backend;
    const whose: Whose = {
      claim: ({ lane, count }) => this.#claimOn([lane], 1 + (count % 3), 2_000),
      withHeld: (step, call) => this.#withHeld(step, call),
      withKnown: (step, call) => this.#withKnown(step, call),
    };
    this.waits = new Waits(backend, whose);
  }

  /** Operations by name, each with how often it comes up. */
  readonly operations: readonly (readonly [
    name: string,
    weight: number,
    call: (step: Step) => Promise<unknown>,
  ])[] = [
    ["submit", 10, (step) => this.#submit(step)],
    ["submitMany", 2, (step) => this.#submitMany(step)],
    ["look", 4, (step) => this.#look(step)],
    ["claim", 14, (step) => this.#claim(step)],
    [
      "complete",
      8,
      (step) =>
        this.#withHeld(step, ({ handle }) =>
          this.#backend.complete({ handle }),
        ),
    ],
    ["completeAndClaim", 6, (step) => this.#completeAndClaim(step)],
    [
      "fail",
      6,
      (step) =>
        this.#withHeld(step, ({ handle }) =>
          this.#backend.fail({
            handle,
            reason: { message: "hammered" },
            classification: step.flag ? "transient" : "permanent",
          }),
        ),
    ],
    [
      "delay",
      3,
      (step) =>
        this.#withHeld(step, ({ handle }) =>
          this.#backend.delay({
            handle,
            delayUntilMs: Date.now() + step.ms,
          }),
        ),
    ],
    [
      "renew",
      4,
      (step) =>
        this.#withHeld(step, ({ handle }) => this.#backend.renew({ handle })),
    ],
    [
      "progress",
      3,
      (step) =>
        this.#withHeld(step, ({ handle }) =>
          this.#backend.progress({ handle, percent: step.count }),
        ),
    ],
    [
      "cancel by its holder",
      1,
      (step) =>
        this.#withHeld(step, ({ handle }) =>
          this.#backend.cancel({ handle, reason: "hammered" }),
        ),
    ],
    [
      "cancel",
      2,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.cancelExecution({ ...id, reason: "hammered" }),
        ),
    ],
    [
      "revoke",
      4,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.revokeLease({ ...id, hold: step.flag }),
        ),
    ],
    [
      "hold",
      3,
      (step) => this.#withKnown(step, (id) => this.#backend.holdExecution(id)),
    ],
    [
      "unhold",
      5,
      (step) =>
        this.#withKnown(step, (id) => this.#backend.unholdExecution(id)),
    ],
    [
      "replay",
      3,
      (step) =>
        this.#withKnown(step, (id) => this.#backend.replayExecution(id)),
    ],
    [
      "changePriority",
      2,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.changePriority({ ...id, newPriority: step.count }),
        ),
    ],
    [
      "setExecutionTag",
      2,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.setExecutionTag({
            ...id,
            key: "hammer",
            value: String(step.count),
          }),
        ),
    ],
    [
      "issueClaimGrant",
      2,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.issueClaimGrant({
            ...id,
            ...this.#claimant,
            grantTtlMs: Math.max(1, step.ms),
          }),
        ),
    ],
    [
      "expire",
      1,
      (step) =>
        this.#withKnown(step, (id) =>
          this.#backend.expireExecution({
            ...id,
            reason: step.flag ? "attempt_timeout" : "execution_deadline",
          }),
        ),
    ],
  ];

  async #submit(step: Step): Promise<void> {
    const created = await this.#backend.createExecution(this.#newItem(step));
    this.#know(created.executionId);
  }

  async #submitMany(step: Step): Promise<void> {
    const answers = await this.#backend.submitMany({
      items: Array.from({ length: step.count }, () => this.#newItem(step)),
      atomicity: step.flag ? "allOrNothing" : "perItem",
    });
    for (const answer of answers)
      if (answer.kind === "rejected") throw new Error(answer.code);
      else this.#know(answer.executionId);
  }

  #newItem({ lane, count, ms, flag, which }: Step) {
    return {
      laneId: lane,
      executionKind: "hammered",
      inputPayload: Buffer.alloc(count * 100, count),
      priority: count,
      tags: flag ? { hammer: "new" } : {},
      ...(ms === 0 ? {} : { delayUntilMs: Date.now() + ms }),
      // Some share a key: with others of this process, and with those of the other processes.
      ...(which % 5 === 0 ? { idempotencyKey: `key-${which % 1_000}` } : {}),
      policy: {
        maxReclaimCount: 3,
        retryPolicy: {
          maxRetries: 2,
          backoff: { type: "fixed" as const, delayMs: ms },
        },
        timeoutPolicy: {
          retryOnTimeout: flag,
          ...(which % 7 === 0 ? { attemptTimeoutMs: 50 + ms } : {}),
          ...(which % 11 === 0 ? { executionDeadlineMs: 200 + ms } : {}),
        },
      },
    };
  }

  /** What the others submitted, so that all hammer on the same. */
  async #look({ lane, which }: Step): Promise<void> {
    const { executions, nextCursor } = await this.#backend.listExecutions({
      lanes: [lane],
      limit: 1_000,
      publicStates: [which % 3 === 0 ? "completed" : "waiting"],
    });
    if (nextCursor === undefined)
      for (const id of executions.slice(-10)) this.#know(id);
    else for (const id of executions.slice(0, 10)) this.#know(id);
  }

  async #claim({ lane, count, ms, flag }: Step): Promise<void> {
    const lanes = flag ? LANES : [lane];
    await this.#claimOn(lanes, count, Math.max(1, ms * 4), flag ? 20 : 0);
  }

  async #claimOn(
    lanes: readonly string[],
    max: number,
    leaseTtlMs: number,
    maxWaitMs = 0,
  ): Promise<ClaimedExecution[]> {
    const { claimed } = await this.#backend.claimMany({
      ...this.#claimant,
      lanes: [...lanes],
      max,
      leaseTtlMs,
      maxWaitMs,
    });
    this.#hold(claimed);
    return claimed;
  }

  async #completeAndClaim(step: Step): Promise<void> {
    if (this.#held.length === 0) return;
    const items = this.#held.splice(0, step.count);
    const { results, claimed } = await this.#backend.completeAndClaim({
      items: items.map(({ handle }) => ({
        handle,
        ...(step.flag
          ? {
              failure: {
                reason: { message: "hammered" },
                classification: "transient" as const,
              },
            }
          : { payload: Buffer.from("done") }),
      })),
      claim: {
        ...this.#claimant,
        lanes: [step.lane],
        max: step.count,
        leaseTtlMs: Math.max(5, step.ms),
      },
    });
    this.#hold(claimed);
    for (const result of results)
      if (result.kind === "rejected" && !REFUSALS.has(result.code as ErrorCode))
        throw new Error(`item: ${result.code}`);
  }

  #know(id: ExecutionId): void {
    this.#known.push(id);
    if (this.#known.length > KNOWN_MAX) this.#known.shift();
  }

  #hold(claimed: readonly ClaimedExecution[]): void {
    this.#held.push(...claimed);
    for (const { executionId } of claimed) this.#know(executionId);
    // The oldest are left to lapse.
    this.#held.splice(0, this.#held.length - HELD_MAX);
  }

  /** A lease that may be long lost; half of the time it is used once more. */
  async #withHeld(
    { which, flag }: Step,
    call: (claimed: ClaimedExecution) => Promise<unknown>,
  ): Promise<void> {
    if (this.#held.length === 0) return;
    // The newest mostly, or nearly all that is tried would come too late.
    const { length } = this.#held;
    const reach = which % 4 === 0 ? length : Math.min(length, 5);
    const at = length - 1 - ((which >> 2) % reach);
    const claimed = this.#held[at]!;
    if (flag) this.#held.splice(at, 1);
    await call(claimed);
  }

  async #withKnown(
    { which }: Step,
    call: (id: { executionId: ExecutionId }) => Promise<unknown>,
  ): Promise<void> {
    if (this.#known.length === 0) return;
    await call({ executionId: this.#known[which % this.#known.length]! });
  }
}

await runProgram(Options, async (backend, { seed, durationMs }) => {
  const hammer = new Hammer(backend);
  const operations = [...hammer.operations, ...hammer.waits.operations];
  const plan = fc.sample(
    fc.tuple(
      fc.oneof(
        ...operations.map((operation, index) => ({
          weight: operation[1],
          arbitrary: fc.constant(index),
        })),
      ),
      Step,
    ),
    { seed, numRuns: 2_000 },
  );
  const tally: Tally = {};
  const faults: string[] = [];
  const count = (operation: string, answer: string) => {
    const answers = (tally[operation] ??= {});
    answers[answer] = (answers[answer] ?? 0) + 1;
  };
  report({ kind: "ready" });

  const endsAtMs = performance.now() + durationMs;
  let next = 0;
  const hammerOn = async () => {
    while (performance.now() < endsAtMs) {
      const [operation, step] = plan[next++ % plan.length]!;
      const [name, , call] = operations[operation]!;
      try {
        await call(step);
        count(name, "done");
      } catch (error) {
        if (isEngineError(error) && REFUSALS.has(error.code))
          count(name, error.code);
        else faults.push(`${name}: ${String(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT_CALLS }, hammerOn));
  const { told } = hammer.waits;
  report({ kind: "hammered", tally, faults: faults.slice(0, 20), told });
});
