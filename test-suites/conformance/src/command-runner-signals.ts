/** Running what random clients do with waitpoints and signals. */
import {
  type ClaimedExecution,
  type EngineBackend,
  type ResumeCondition,
} from "@flowfabric/core";
import { expect } from "vitest";

import { uuid } from "./builders.js";
import type { Command, SuspensionSpec } from "./commands.js";
import type { World } from "./model.js";
import {
  allOf,
  count,
  plain,
  signalInput,
  single,
  suspendArgs,
  targetsOf,
  type Target,
} from "./suspension-builders.js";

export type WaitingCommand = Extract<Command, { do: "suspend" | "waitpoint" }>;
export type StoryCommand = Extract<Command, { do: "submitAndSuspend" }>;
export type SignalCommand = Extract<
  Command,
  { do: "signal" | "approve" | "closeWaitpoint" }
>;

function conditionOf(
  { until }: SuspensionSpec,
  keys: readonly string[],
): ResumeCondition {
  switch (until) {
    case "all":
      return allOf(...keys.map((key) => single(key)));
    case "two sources":
      return count(2, "distinctSources", keys);
    case "an operator":
      return { kind: "operatorOnly" };
  }
}

/** Whatever the claim gets is suspended, some of the votes before that where it can be. */
export async function runStory(
  world: World,
  backend: EngineBackend,
  { spec, votes }: StoryCommand,
  claimed: ClaimedExecution,
): Promise<void> {
  const vote = async ({ pick, source }: StoryCommand["votes"][number]) => {
    const target = world.targetAt(pick);
    if (target === undefined) return;
    const command = { do: "signal" as const, pick, source, again: false };
    await runSignal(world, backend, command, target);
  };
  const early = spec.pending ? votes.slice(0, 1) : [];
  if (spec.pending)
    await runWaiting(
      world,
      backend,
      { do: "waitpoint", pick: 0, expiresInMs: 60_000 },
      claimed,
    );
  for (const one of early) await vote(one);
  await runWaiting(world, backend, { do: "suspend", pick: 0, spec }, claimed);
  for (const one of votes.slice(early.length)) await vote(one);
}

export async function runWaiting(
  world: World,
  backend: EngineBackend,
  command: WaitingCommand,
  { handle, executionId }: ClaimedExecution,
): Promise<void> {
  if (command.do === "waitpoint") {
    const { waitpointId, hmacToken } = await backend.createWaitpoint({
      handle,
      waitpointKey: "a",
      expiresInMs: command.expiresInMs,
    });
    world.targeted([{ executionId, waitpointId, token: hmacToken }]);
    return;
  }
  const { spec } = command;
  const earlier = spec.pending
    ? world.targets.findLast((target) => target.executionId === executionId)
    : undefined;
  // For operators nothing is referred to, and one waitpoint is all there may be.
  const keys =
    earlier !== undefined
      ? ["a"]
      : spec.until === "an operator"
        ? spec.keys.slice(0, 1)
        : spec.keys;
  const args = suspendArgs({
    keys,
    resumeCondition: conditionOf(spec, keys),
    idempotencyKey: uuid(),
    ...(earlier === undefined
      ? {}
      : {
          waitpoints: [
            { kind: "usePending" as const, waitpointId: earlier.waitpointId },
          ],
        }),
    ...(spec.timeoutMs === null
      ? {}
      : {
          timeoutAtMs: (await backend.serverTimeMs()) + spec.timeoutMs,
          timeoutBehavior: spec.behavior,
        }),
    resumePolicy: spec.delayMs === null ? {} : { resumeDelayMs: spec.delayMs },
  });
  const outcome = await backend.suspend({ handle, ...args });
  world.targeted(targetsOf(executionId, outcome));
  if (spec.again)
    expect(plain(await backend.suspend({ handle, ...args })), "S6").toEqual(
      plain(outcome),
    );
}

export async function runSignal(
  world: World,
  backend: EngineBackend,
  command: SignalCommand,
  target: Target,
): Promise<void> {
  const { executionId, waitpointId } = target;
  switch (command.do) {
    case "signal": {
      const input = signalInput(target, {
        sourceIdentity: `${command.source}`,
      });
      world.delivered(target, await backend.deliverSignal(input));
      if (command.again)
        expect(await backend.deliverSignal(input), "G3").toEqual({
          kind: "duplicate",
          existingSignalId: input.signalId,
        });
      return;
    }
    case "approve":
      world.delivered(
        target,
        await backend.deliverApprovalSignal({
          executionId,
          waitpointId,
          signalName: "approved",
          idempotencySuffix: `${command.vote}`,
        }),
      );
      return;
    case "closeWaitpoint":
      await backend.closeWaitpoint({
        operator: true,
        executionId,
        waitpointId,
      });
      return;
  }
}
