/** What hammers do beside running executions: they wait for signals, send them, write output and change the keys. */
import { randomUUID } from "node:crypto";

import {
  TIMEOUT_BEHAVIORS,
  type ClaimedExecution,
  type DeliverSignalResult,
  type EngineBackend,
  type ExecutionId,
  type Frame,
  type PendingWaitpointInfo,
  type SuspendOutcome,
  type WaitpointToken,
} from "@flowfabric/core";

import type { Step, Whose } from "./hammer-steps.js";
import type { Told } from "./reports.js";

/** Where a signal goes to. */
interface Target {
  readonly executionId: ExecutionId;
  readonly waitpointId: string;
  readonly waitpointToken: WaitpointToken;
}

const TARGETS_MAX = 200;
/** Tokens last a few rotations of all processes, and some do not. */
const ROTATES_EVERY_MS = 400;
const PATCHING = {
  kind: "durableSummary",
  patchKind: "jsonMergePatch",
} as const;

export class Waits {
  readonly told: Told = { signals: [], suspensions: [], frames: [] };
  readonly #backend: EngineBackend;
  readonly #whose: Whose;
  readonly #targets: Target[] = [];
  #frames = 0;
  #kids = 0;
  #rotatedAtMs = 0;

  constructor(backend: EngineBackend, whose: Whose) {
    this.#backend = backend;
    this.#whose = whose;
  }

  readonly operations: readonly (readonly [
    name: string,
    weight: number,
    call: (step: Step) => Promise<unknown>,
  ])[] = [
    ["suspend", 8, (step) => this.#held(step, this.#suspend)],
    // In one go, for most leases are over before chance makes a suspension of them.
    ["claim and suspend", 6, (step) => this.#claimAndSuspend(step)],
    ["createWaitpoint", 4, (step) => this.#held(step, this.#createWaitpoint)],
    ["signal", 12, (step) => this.#signal(step)],
    ["signal what is listed", 6, (step) => this.#listed(step, this.#look)],
    ["approve", 3, (step) => this.#listed(step, this.#approve)],
    ["closeWaitpoint", 1, (step) => this.#listed(step, this.#close)],
    [
      "closeWaitpoint by its holder",
      1,
      (step) => this.#held(step, this.#closeOwn),
    ],
    [
      "resume",
      1,
      (step) =>
        this.#whose.withKnown(step, (id) => this.#backend.resumeExecution(id)),
    ],
    [
      "expireSuspension",
      1,
      (step) =>
        this.#whose.withKnown(step, (id) => this.#backend.expireSuspension(id)),
    ],
    ["append", 8, (step) => this.#held(step, this.#append)],
    ["tail", 3, (step) => this.#tail(step)],
    [
      "observe",
      2,
      (step) =>
        this.#whose.withHeld(step, ({ handle }) =>
          this.#backend.observeSignals({ handle }),
        ),
    ],
    [
      "listSuspended",
      1,
      ({ count }) => this.#backend.listSuspended({ limit: count }),
    ],
    ["rotate", 2, (step) => this.#rotate(step)],
  ];

  #held(
    step: Step,
    call: (step: Step, claimed: ClaimedExecution) => Promise<unknown>,
  ): Promise<void> {
    return this.#whose.withHeld(step, (claimed) =>
      call.call(this, step, claimed),
    );
  }

  #listed(
    step: Step,
    call: (step: Step, waitpoint: PendingWaitpointInfo) => Promise<unknown>,
  ): Promise<void> {
    return this.#whose.withKnown(step, async (id) => {
      const { entries } = await this.#backend.listPendingWaitpoints(id);
      const found = entries[step.which % Math.max(1, entries.length)];
      if (found !== undefined) await call.call(this, step, found);
    });
  }

  async #suspend(
    { which, count, ms, flag }: Step,
    { handle, executionId }: ClaimedExecution,
  ): Promise<void> {
    const pending = flag
      ? this.#targets.findLast((target) => target.executionId === executionId)
      : undefined;
    const keys = pending === undefined && which % 2 === 0 ? ["a", "b"] : ["a"];
    const needed = 1 + (count % 3);
    const suspensionId = randomUUID();
    const suspend = () =>
      this.#backend.suspend({
        handle,
        suspensionId,
        waitpoints:
          pending === undefined
            ? waitpoints
            : [{ kind: "usePending", waitpointId: pending.waitpointId }],
        resumeCondition: {
          kind: "composite",
          body: {
            kind: "count",
            n: needed,
            countKind: "distinctSignals",
            waitpoints: keys,
          },
        },
        reasonCode: "waiting_for_signal",
        resumePolicy: which % 5 === 0 ? { resumeDelayMs: ms } : {},
        ...(which % 3 === 0
          ? {}
          : {
              timeoutAtMs: Date.now() + ms,
              timeoutBehavior:
                TIMEOUT_BEHAVIORS[which % TIMEOUT_BEHAVIORS.length]!,
            }),
      });
    const waitpoints = keys.map((waitpointKey) => ({
      kind: "fresh" as const,
      waitpointId: randomUUID(),
      waitpointKey,
    }));
    const outcome = await suspend();
    if (outcome.kind === "suspended" && pending === undefined)
      this.told.suspensions.push({ executionId, suspensionId, needed });
    for (const { waitpointId, waitpointToken } of waitpointsOf(outcome))
      this.#know({ executionId, waitpointId, waitpointToken });
    // As after a lost reply. The answer is the first one, however far it has come since.
    if (count <= 6) return;
    const again = await suspend();
    if (again.kind !== outcome.kind || idsOf(again) !== idsOf(outcome))
      throw new Error(`repeated: ${idsOf(again)}, not ${idsOf(outcome)}`);
  }

  async #claimAndSuspend(step: Step): Promise<void> {
    for (const claimed of await this.#whose.claim(step)) {
      if (step.flag) {
        await this.#createWaitpoint(step, claimed);
        await this.#signal({ ...step, which: 0 });
      }
      await this.#append(step, claimed);
      await this.#suspend(step, claimed);
    }
  }

  async #createWaitpoint(
    { ms }: Step,
    { handle, executionId }: ClaimedExecution,
  ): Promise<void> {
    const { waitpointId, hmacToken } = await this.#backend.createWaitpoint({
      handle,
      waitpointKey: "a",
      expiresInMs: 1 + ms * 2,
    });
    this.#know({ executionId, waitpointId, waitpointToken: hmacToken });
  }

  async #signal(step: Step): Promise<void> {
    const { length } = this.#targets;
    if (length === 0) return;
    // The newest mostly, for the others are closed by now.
    const back =
      step.which % (step.count === 1 ? length : Math.min(length, 20));
    await this.#deliver(step, this.#targets[length - 1 - back]!);
  }

  async #look(
    step: Step,
    { executionId, waitpointId }: PendingWaitpointInfo,
  ): Promise<void> {
    const waitpointToken = await this.#backend.readWaitpointToken({
      executionId,
      waitpointId,
    });
    if (waitpointToken === undefined) return;
    this.#know({ executionId, waitpointId, waitpointToken });
    await this.#deliver(step, { executionId, waitpointId, waitpointToken });
  }

  async #deliver({ which, count, flag }: Step, target: Target): Promise<void> {
    const input = {
      ...target,
      signalId: randomUUID(),
      signalName: "go",
      payload: Buffer.alloc(count, which),
      // Some share a key with what this process or another one sends.
      ...(which % 3 === 0 ? { idempotencyKey: `key-${count}` } : {}),
    };
    const send = async () => {
      const answer = await this.#backend.deliverSignal(input);
      this.#tell(target.executionId, answer);
      return answer.kind;
    };
    // Sent twice, at the same time or one after the other, it is one signal.
    const sent = [send()];
    if (count > 5 && !flag) await Promise.allSettled(sent);
    if (count > 5) sent.push(send());
    await Promise.allSettled(sent);
    const kinds = await Promise.all(sent);
    if (kinds.filter((kind) => kind === "accepted").length > 1)
      throw new Error(`accepted twice: ${input.signalId}`);
  }

  async #approve(
    { which }: Step,
    { executionId, waitpointId }: PendingWaitpointInfo,
  ): Promise<void> {
    const answer = await this.#backend.deliverApprovalSignal({
      executionId,
      waitpointId,
      signalName: "approved",
      idempotencySuffix: String(which % 7),
    });
    this.#tell(executionId, answer);
  }

  #close(
    _step: Step,
    { executionId, waitpointId }: PendingWaitpointInfo,
  ): Promise<unknown> {
    return this.#backend.closeWaitpoint({
      operator: true,
      executionId,
      waitpointId,
    });
  }

  async #closeOwn(
    _step: Step,
    { handle, executionId }: ClaimedExecution,
  ): Promise<void> {
    const own = this.#targets.findLast(
      (target) => target.executionId === executionId,
    );
    if (own === undefined) return;
    const { waitpointId } = own;
    await this.#backend.closeWaitpoint({ handle, waitpointId });
  }

  async #append(
    { which, count }: Step,
    { handle, executionId, attemptIndex }: ClaimedExecution,
  ): Promise<void> {
    const isPatch = which % 4 === 0;
    // Of patches a stream keeps 64 frames, so that there may not be many.
    const texts = Array.from(
      { length: isPatch ? 1 : count },
      () => `{"${process.pid}":${this.#frames++}}`,
    );
    const frames = texts.map((text): Frame => ({
      bytes: Buffer.from(text),
      ...(isPatch ? { mode: PATCHING } : {}),
    }));
    const appended = await this.#backend.appendFrames({ handle, frames });
    this.told.frames.push(
      ...appended.map(({ streamId }, index) => ({
        executionId,
        attemptIndex,
        id: streamId,
        text: texts[index]!,
        isPatch,
      })),
    );
  }

  #tail(step: Step): Promise<void> {
    return this.#whose.withKnown(step, async ({ executionId }) => {
      await this.#backend.tailStream({
        executionId,
        attemptIndex: step.count % 3,
        after: "0-0",
        blockMs: Math.min(step.ms, 20),
        countLimit: 10,
      });
    });
  }

  async #rotate({ ms, flag }: Step): Promise<void> {
    if (performance.now() < this.#rotatedAtMs + ROTATES_EVERY_MS) return;
    this.#rotatedAtMs = performance.now();
    const { entries } = await this.#backend.rotateWaitpointHmacSecretAll({
      newKid: `${process.pid}.${this.#kids++}`,
      newSecretHex: randomUUID().replaceAll("-", "").repeat(2),
      graceMs: flag ? 5_000 : ms,
    });
    for (const { result } of entries)
      if (result.kind !== "rotated") throw new Error(JSON.stringify(result));
  }

  #know(target: Target): void {
    this.#targets.push(target);
    if (this.#targets.length > TARGETS_MAX) this.#targets.shift();
  }

  #tell(executionId: ExecutionId, answer: DeliverSignalResult): void {
    if (answer.kind !== "accepted") return;
    const { signalId, effect } = answer;
    this.told.signals.push({ executionId, signalId, effect });
  }
}

function waitpointsOf({ details }: SuspendOutcome) {
  return [details, ...details.additionalWaitpoints];
}

function idsOf(outcome: SuspendOutcome): string {
  return waitpointsOf(outcome)
    .map(({ waitpointId }) => waitpointId)
    .join();
}
