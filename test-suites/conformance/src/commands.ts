/**
 * What random clients do. A command is plain data, so that a failing run can be printed, shrunk and repeated; whom it hits
 * is decided when it runs, by picking among what exists then.
 */
import {
  newAttemptId,
  newLeaseId,
  SWEEPS,
  type ClaimedExecution,
  type CreateExecutionInput,
  type EngineBackend,
  type ExecutionPolicyInput,
} from "@flowfabric/core";
import fc from "fast-check";

import { fenceOf, WORKER } from "./builders.js";
import { expectedPayload, type World } from "./model.js";

const CAPABILITIES = ["gpu", "eu"] as const;
const pick = fc.nat(1_000);
const lane = fc.nat(1);
const worker = fc.nat(2);
const ttlMs = fc.constantFrom(400, 2_000, 60_000);
const capabilities = fc.subarray([...CAPABILITIES]);

const policy = fc.record({
  retries: fc.constantFrom<"none" | "now" | "later">("none", "now", "later"),
  attemptTimeoutMs: fc.option(fc.constantFrom(500, 5_000)),
  retryOnTimeout: fc.boolean(),
  deadlineMs: fc.option(fc.constantFrom(1_500, 20_000)),
  reclaims: fc.option(fc.nat(2)),
  required: fc.oneof(
    { weight: 4, arbitrary: fc.constant<string[]>([]) },
    { weight: 1, arbitrary: capabilities },
  ),
});
type PolicySpec = typeof policy extends fc.Arbitrary<infer T> ? T : never;

const submission = fc.record({
  lane,
  priority: fc.nat(3),
  delayMs: fc.option(fc.constantFrom(300, 3_000)),
  key: fc.option(fc.nat(3)),
  tag: fc.option(fc.nat(2)),
  namespace: fc.constantFrom("default", "other"),
  policy: fc.option(policy),
});
type SubmissionSpec =
  typeof submission extends fc.Arbitrary<infer T> ? T : never;

const claim = fc.record({
  worker,
  lanes: fc.subarray([0, 1], { minLength: 1 }),
  max: fc.integer({ min: 1, max: 4 }),
  ttlMs,
  capabilities,
});
type ClaimSpec = typeof claim extends fc.Arbitrary<infer T> ? T : never;

const reason = fc.constantFrom(
  "waiting_for_budget",
  "waiting_for_quota",
  "waiting_for_capable_worker",
  "paused_by_operator",
  "paused_by_policy",
);

/** Weights make long lives likely: claims and outcomes often, ends by force seldom. */
export const commands = fc.oneof(
  weighted(6, { do: fc.constant("submit" as const), spec: submission }),
  weighted(1, {
    do: fc.constant("submitMany" as const),
    specs: fc.array(submission, { minLength: 1, maxLength: 3 }),
  }),
  weighted(7, { do: fc.constant("claimMany" as const), spec: claim }),
  weighted(2, {
    do: fc.constant("claimForWorker" as const),
    worker,
    lane,
    capabilities,
  }),
  weighted(2, {
    do: fc.constant("grant" as const),
    pick,
    worker,
    capabilities,
  }),
  weighted(3, { do: fc.constant("useGrant" as const), pick, worker, ttlMs }),
  weighted(1, { do: fc.constant("grantAndClaim" as const), pick, ttlMs }),
  weighted(5, { do: fc.constant("complete" as const), pick }),
  weighted(1, {
    do: fc.constant("completeByFence" as const),
    pick,
    override: fc.boolean(),
  }),
  weighted(2, {
    do: fc.constant("completeAndClaim" as const),
    picks: fc.array(pick, { minLength: 1, maxLength: 3 }),
    failing: fc.boolean(),
    spec: claim,
  }),
  weighted(4, {
    do: fc.constant("fail" as const),
    pick,
    permanent: fc.boolean(),
  }),
  weighted(1, { do: fc.constant("cancelOwn" as const), pick }),
  weighted(3, {
    do: fc.constant("delay" as const),
    pick,
    delayMs: fc.constantFrom(0, 800),
  }),
  weighted(2, { do: fc.constant("progress" as const), pick }),
  weighted(3, { do: fc.constant("renew" as const), pick }),
  weighted(1, { do: fc.constant("cancel" as const), pick }),
  weighted(3, { do: fc.constant("replay" as const), pick }),
  weighted(1, { do: fc.constant("hold" as const), pick }),
  weighted(2, { do: fc.constant("unhold" as const), pick }),
  weighted(2, { do: fc.constant("block" as const), pick, reason }),
  weighted(2, {
    do: fc.constant("unblock" as const),
    pick,
    reason: fc.option(reason),
  }),
  weighted(1, {
    do: fc.constant("priority" as const),
    pick,
    priority: fc.nat(3),
  }),
  weighted(1, { do: fc.constant("tag" as const), pick, value: fc.nat(2) }),
  weighted(2, { do: fc.constant("revoke" as const), pick, hold: fc.boolean() }),
  weighted(2, {
    do: fc.constant("reclaim" as const),
    pick,
    worker,
    ttlMs,
    capabilities,
  }),
  weighted(1, { do: fc.constant("markLapsed" as const), pick }),
  weighted(1, { do: fc.constant("promote" as const), pick }),
  weighted(2, {
    do: fc.constant("expire" as const),
    pick,
    deadline: fc.boolean(),
  }),
  weighted(2, {
    do: fc.constant("sweep" as const),
    name: fc.constantFrom(...SWEEPS),
  }),
  weighted(2, {
    do: fc.constant("register" as const),
    worker,
    lanes: fc.subarray([0, 1], { minLength: 1 }),
    capabilities,
  }),
  weighted(1, {
    do: fc.constant("markDead" as const),
    worker,
    expireLeases: fc.boolean(),
  }),
);
export type Command = typeof commands extends fc.Arbitrary<infer T> ? T : never;

function weighted<T extends { do: fc.Arbitrary<unknown> }>(
  weight: number,
  fields: T,
) {
  type Fields = {
    [K in keyof T]: T[K] extends fc.Arbitrary<infer V> ? V : never;
  };
  return { weight, arbitrary: fc.record(fields) as fc.Arbitrary<Fields> };
}

function workerOf(n: number): {
  workerId: string;
  workerInstanceId: string;
} {
  // The last two are processes of one worker: a grant for the one serves the other.
  return {
    workerId: n === 0 ? WORKER.workerId : "pool",
    workerInstanceId: `instance-${n}`,
  };
}

function policyOf(spec: PolicySpec): ExecutionPolicyInput {
  return {
    ...(spec.retries === "none"
      ? {}
      : {
          retryPolicy: {
            maxRetries: 2,
            backoff: {
              type: "fixed" as const,
              delayMs: spec.retries === "now" ? 0 : 1_000,
            },
          },
        }),
    timeoutPolicy: {
      ...(spec.attemptTimeoutMs === null
        ? {}
        : { attemptTimeoutMs: spec.attemptTimeoutMs }),
      ...(spec.deadlineMs === null
        ? {}
        : { executionDeadlineMs: spec.deadlineMs }),
      retryOnTimeout: spec.retryOnTimeout,
    },
    ...(spec.reclaims === null ? {} : { maxReclaimCount: spec.reclaims }),
    maxReplayCount: 3,
    routingRequirements: { requiredCapabilities: spec.required },
  };
}

function inputOf(
  world: World,
  spec: SubmissionSpec,
  nowMs: number,
): CreateExecutionInput {
  return {
    executionKind: "k",
    laneId: world.lanes[spec.lane]!,
    namespace: spec.namespace,
    priority: spec.priority,
    ...(spec.delayMs === null ? {} : { delayUntilMs: nowMs + spec.delayMs }),
    ...(spec.key === null ? {} : { idempotencyKey: `key-${spec.key}` }),
    ...(spec.tag === null ? {} : { tags: { team: `${spec.tag}` } }),
    ...(spec.policy === null ? {} : { policy: policyOf(spec.policy) }),
  };
}

const claimInput = (world: World, spec: ClaimSpec) => ({
  ...workerOf(spec.worker),
  lanes: spec.lanes.map((index) => world.lanes[index]!),
  max: spec.max,
  leaseTtlMs: spec.ttlMs,
  capabilities: spec.capabilities,
});

/** Runs one command; a refusal is the caller's to judge. */
export async function runCommand(
  world: World,
  backend: EngineBackend,
  command: Command,
): Promise<void> {
  switch (command.do) {
    case "submit": {
      const input = inputOf(world, command.spec, await backend.serverTimeMs());
      world.submitted(input, await backend.createExecution(input));
      return;
    }
    case "submitMany": {
      const now = await backend.serverTimeMs();
      const items = command.specs.map((spec) => inputOf(world, spec, now));
      const answers = await backend.submitMany({ items });
      answers.forEach((answer, index) =>
        world.submitted(items[index]!, answer),
      );
      return;
    }
    case "claimMany": {
      const answer = await backend.claimMany(claimInput(world, command.spec));
      answer.claimed.forEach((claimed) => world.acquired(claimed));
      return;
    }
    case "claimForWorker": {
      const answer = await backend.claimForWorker({
        ...workerOf(command.worker),
        laneId: world.lanes[command.lane]!,
        capabilities: command.capabilities,
        grantTtlMs: 1_000,
      });
      if (answer.kind === "granted") world.granted(answer.grant);
      return;
    }
    case "register":
      await backend.registerWorker({
        ...workerOf(command.worker),
        lanes: command.lanes.map((index) => world.lanes[index]!),
        capabilities: command.capabilities,
        livenessTtlMs: 60_000,
        namespace: "default",
      });
      return;
    case "markDead":
      await backend.markWorkerDead({
        workerInstanceId: workerOf(command.worker).workerInstanceId,
        namespace: "default",
        reason: "silent",
        expireLeases: command.expireLeases,
      });
      return;
    case "sweep":
      await backend.sweep({ name: command.name });
      return;
    case "completeAndClaim": {
      const held = command.picks.flatMap((one) => world.claimAt(one) ?? []);
      if (held.length === 0) return;
      const answer = await backend.completeAndClaim({
        items: held.map((claimed) => ({
          handle: claimed.handle,
          ...(command.failing ? { failure: FAILURE } : payloadField(claimed)),
        })),
        claim: claimInput(world, command.spec),
      });
      answer.claimed.forEach((claimed) => world.acquired(claimed));
      return;
    }
    case "complete":
    case "completeByFence":
    case "fail":
    case "cancelOwn":
    case "delay":
    case "progress":
    case "renew": {
      const claimed = world.claimAt(command.pick);
      if (claimed !== undefined) await runAsHolder(backend, command, claimed);
      return;
    }
    default: {
      const executionId = world.idAt(command.pick);
      if (executionId !== undefined)
        await runOn(world, backend, command, executionId);
    }
  }
}

const FAILURE = {
  reason: { message: "broken" },
  classification: "transient",
} as const;

function payloadField(claimed: ClaimedExecution) {
  const payload = expectedPayload(claimed.executionId, claimed.attemptIndex);
  return payload === undefined ? {} : { payload };
}

type HolderCommand = Extract<
  Command,
  {
    do:
      | "complete"
      | "completeByFence"
      | "fail"
      | "cancelOwn"
      | "delay"
      | "progress"
      | "renew";
  }
>;

async function runAsHolder(
  backend: EngineBackend,
  command: HolderCommand,
  claimed: ClaimedExecution,
): Promise<void> {
  const { handle, executionId } = claimed;
  switch (command.do) {
    case "complete":
      return backend.complete({ handle, ...payloadField(claimed) });
    case "completeByFence": {
      const { payload } = { payload: undefined, ...payloadField(claimed) };
      await backend.completeExecution({
        executionId,
        // An operator's word ends whichever attempt runs now, so it brings no result of a certain one.
        ...(command.override
          ? { source: "operator_override", resultPayload: OVERRIDE_RESULT }
          : {
              fence: fenceOf(claimed),
              ...(payload === undefined ? {} : { resultPayload: payload }),
            }),
      });
      return;
    }
    case "fail":
      await backend.fail({
        handle,
        ...FAILURE,
        ...(command.permanent ? { classification: "permanent" } : {}),
      });
      return;
    case "cancelOwn":
      return backend.cancel({ handle, reason: "mine" });
    case "delay": {
      const now = await backend.serverTimeMs();
      await backend.delay({
        handle,
        delayUntilMs: command.delayMs === 0 ? 1 : now + command.delayMs,
      });
      return;
    }
    case "progress":
      return backend.progress({ handle, percent: 50 });
    case "renew":
      await backend.renew({ handle });
      return;
  }
}

export const OVERRIDE_RESULT = new TextEncoder().encode("by an operator");

async function runOn(
  world: World,
  backend: EngineBackend,
  command: Exclude<
    Command,
    | HolderCommand
    | {
        do:
          | "submit"
          | "submitMany"
          | "claimMany"
          | "claimForWorker"
          | "register"
          | "markDead"
          | "sweep"
          | "completeAndClaim";
      }
  >,
  executionId: string,
): Promise<void> {
  const ref = { executionId };
  switch (command.do) {
    case "grant": {
      const { grant } = await backend.issueClaimGrant({
        ...ref,
        ...workerOf(command.worker),
        workerCapabilities: command.capabilities,
        grantTtlMs: 1_000,
      });
      world.granted(grant);
      return;
    }
    case "useGrant": {
      const grant = world.grantOf(executionId);
      if (grant === undefined) return;
      const input = {
        ...ref,
        ...workerOf(command.worker),
        leaseId: newLeaseId(),
        leaseTtlMs: command.ttlMs,
      };
      if (grant.kind === "reclaim") {
        const answer = await backend.reclaimExecution({
          ...input,
          attemptId: newAttemptId(),
        });
        if (answer.kind === "claimed") world.acquired(answer.claimed);
        return;
      }
      const { claimed } =
        grant.kind === "resume"
          ? await backend.claimResumedExecution(input)
          : await backend.claimExecution({
              ...input,
              attemptId: newAttemptId(),
            });
      world.acquired(claimed);
      return;
    }
    case "grantAndClaim":
      await backend.issueGrantAndClaim({ ...ref, leaseTtlMs: command.ttlMs });
      return;
    case "reclaim": {
      const answer = await backend.issueReclaimGrant({
        ...ref,
        ...workerOf(command.worker),
        workerCapabilities: command.capabilities,
        grantTtlMs: 1_000,
      });
      if (answer.kind === "granted") world.granted(answer.grant);
      return;
    }
    case "cancel":
      await backend.cancelExecution({ ...ref, reason: "not needed" });
      return;
    case "replay":
      await backend.replayExecution(ref);
      return;
    case "hold":
      await backend.holdExecution(ref);
      return;
    case "unhold":
      await backend.unholdExecution(ref);
      return;
    case "block":
      await backend.blockExecutionForAdmission({
        ...ref,
        reason: command.reason,
      });
      return;
    case "unblock":
      await backend.unblockExecution({
        ...ref,
        ...(command.reason === null
          ? {}
          : { expectedBlockingReason: command.reason }),
      });
      return;
    case "priority":
      await backend.changePriority({ ...ref, newPriority: command.priority });
      return;
    case "tag":
      await backend.setExecutionTag({
        ...ref,
        key: "team",
        value: `${command.value}`,
      });
      return;
    case "revoke":
      await backend.revokeLease({ ...ref, hold: command.hold });
      return;
    case "markLapsed":
      await backend.markLeaseExpiredIfDue(ref);
      return;
    case "promote":
      await backend.promoteDelayed(ref);
      return;
    case "expire":
      await backend.expireExecution({
        ...ref,
        reason: command.deadline ? "execution_deadline" : "attempt_timeout",
      });
      return;
  }
}
