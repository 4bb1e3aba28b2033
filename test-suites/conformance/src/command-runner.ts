/** Running what random clients do: each command on whom it picks. */
import {
  newAttemptId,
  newLeaseId,
  type ClaimedExecution,
  type CreateExecutionInput,
  type EngineBackend,
  type ExecutionPolicyInput,
} from "@flowfabric/core";

import { fenceOf, WORKER } from "./builders.js";
import type {
  ClaimSpec,
  Command,
  PolicySpec,
  SubmissionSpec,
} from "./commands.js";
import { appendAll, frame } from "./stream-builders.js";
import { expectedPayload, OVERRIDE_RESULT, type World } from "./model.js";
import {
  runSignal,
  runStory,
  runWaiting,
  type SignalCommand,
  type WaitingCommand,
} from "./command-runner-signals.js";

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
    case "submitAndSuspend": {
      await runCommand(world, backend, {
        do: "submit",
        spec: command.submission,
      });
      const known = world.claims.length;
      await runCommand(world, backend, {
        do: "claimMany",
        spec: command.claim,
      });
      const claimed = world.claims[known];
      if (claimed !== undefined)
        await runStory(world, backend, command, claimed);
      return;
    }
    case "suspend":
    case "waitpoint": {
      const claimed = world.claimAt(command.pick);
      if (claimed !== undefined)
        await runWaiting(world, backend, command, claimed);
      return;
    }
    case "signal":
    case "approve":
    case "closeWaitpoint": {
      const target = world.targetAt(command.pick);
      if (target !== undefined)
        await runSignal(world, backend, command, target);
      return;
    }
    case "append": {
      const claimed = world.claimAt(command.pick);
      if (claimed === undefined) return;
      const appended = await appendAll(
        backend,
        claimed,
        command.texts.map((text) => frame(text)),
      );
      appended.forEach(({ streamId }, index) =>
        world.appended(claimed, streamId, command.texts[index]!),
      );
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
          | "completeAndClaim"
          | "submitAndSuspend"
          | "append";
      }
    | WaitingCommand
    | SignalCommand
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
    case "resume":
      await backend.resumeExecution(ref);
      return;
    case "timeOut":
      await backend.expireSuspension(ref);
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
