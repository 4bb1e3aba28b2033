/**
 * Backends that are wrong on purpose. Each is a sound one behind a layer that spoils one promise, in the way a real fault
 * would: a check forgotten, an index entry lost, a write doubled.
 */
import {
  admissionConformance,
  claimsConformance,
  eventsConformance,
  executionsConformance,
  invariantsConformance,
  leasesConformance,
  maintenanceConformance,
  outcomesConformance,
  readsConformance,
  secretsConformance,
  signalsConformance,
  suspensionConformance,
  streamsConformance,
  tagsConformance,
  transitionsConformance,
  workersConformance,
  type BackendHarness,
  type Group,
} from "@flowfabric/conformance";
import {
  decodeHandle,
  isEngineError,
  type CompletionEvent,
  type EngineBackend,
  type ExecutionSnapshot,
  type StreamFrames,
} from "@flowfabric/core";

/** Replaces operations; the others are the sound backend's. */
type Spoil = (sound: EngineBackend) => Partial<EngineBackend>;

export interface BrokenBackend {
  readonly fault: string;
  /** Each of these must notice. */
  readonly groups: readonly Group[];
  readonly spoil: Spoil;
}

/** Remembers on which execution a fault struck, so that it strikes there only and for good. */
function everyThird(): (key: string) => boolean {
  const seen = new Map<string, number>();
  return (key) => {
    if (!seen.has(key)) seen.set(key, seen.size);
    return seen.get(key)! % 3 === 2;
  };
}

async function* spoiled<T>(
  feed: AsyncIterable<T>,
  copies: (event: T) => number,
): AsyncIterable<T> {
  for await (const event of feed)
    for (let copy = copies(event); copy > 0; copy--) yield event;
}

function withVector(
  snapshot: ExecutionSnapshot,
  change: Partial<ExecutionSnapshot["stateVector"]>,
): ExecutionSnapshot {
  return { ...snapshot, stateVector: { ...snapshot.stateVector, ...change } };
}

/** Spoils what both ways of reading a stream answer. */
function withPages(
  sound: EngineBackend,
  spoilt: (page: StreamFrames) => StreamFrames | Promise<StreamFrames>,
): Partial<EngineBackend> {
  return {
    readStream: async (input) => spoilt(await sound.readStream(input)),
    tailStream: async (input) => spoilt(await sound.tailStream(input)),
  };
}

export const BROKEN_BACKENDS: readonly BrokenBackend[] = [
  {
    fault: "progress is accepted without a look at the fence",
    groups: [leasesConformance, transitionsConformance],
    spoil: (sound) => ({
      progress: (input) => sound.progress(input).catch(() => undefined),
    }),
  },
  {
    fault: "the epoch in the answer is one too high",
    groups: [claimsConformance, invariantsConformance],
    spoil: (sound) => ({
      async claimMany(input) {
        const answer = await sound.claimMany(input);
        const claimed = answer.claimed.map((one) => ({
          ...one,
          leaseEpoch: one.leaseEpoch + 1,
        }));
        return { ...answer, claimed };
      },
      async claim(input) {
        const claimed = await sound.claim(input);
        return claimed && { ...claimed, leaseEpoch: claimed.leaseEpoch + 1 };
      },
    }),
  },
  {
    fault: "some executions are missing from scans",
    groups: [claimsConformance, invariantsConformance],
    spoil: (sound) => {
      const lost = everyThird();
      return {
        scanEligibleExecutions: async (input) =>
          (await sound.scanEligibleExecutions(input)).filter(
            (executionId) => !lost(executionId),
          ),
      };
    },
  },
  {
    fault: "some executions are missing from lists",
    groups: [readsConformance, invariantsConformance],
    spoil: (sound) => {
      const lost = everyThird();
      return {
        async listExecutions(input) {
          const page = await sound.listExecutions(input);
          return {
            ...page,
            executions: page.executions.filter((id) => !lost(id)),
          };
        },
      };
    },
  },
  {
    fault: "completions are told twice",
    groups: [eventsConformance, invariantsConformance],
    spoil: (sound) => ({
      subscribeCompletion: async (input) =>
        spoiled(await sound.subscribeCompletion(input), () => 2),
    }),
  },
  {
    fault: "some completions are never told",
    groups: [eventsConformance, invariantsConformance],
    spoil: (sound) => {
      const lost = everyThird();
      return {
        subscribeCompletion: async (input) =>
          spoiled(
            await sound.subscribeCompletion(input),
            (event: CompletionEvent) => (lost(event.executionId) ? 0 : 1),
          ),
      };
    },
  },
  {
    fault: "a feed goes on at its cursor instead of behind it",
    groups: [eventsConformance],
    spoil: (sound) => {
      let last: CompletionEvent | undefined;
      return {
        async subscribeCompletion(input) {
          const feed = await sound.subscribeCompletion(input);
          const again = last?.cursor === input.cursor ? last : undefined;
          return (async function* () {
            if (again !== undefined) yield again;
            for await (const event of feed) {
              last = event;
              yield event;
            }
          })();
        },
      };
    },
  },
  {
    fault: "a retry is answered, but the execution has failed",
    groups: [outcomesConformance, transitionsConformance],
    spoil: (sound) => ({
      async fail(input) {
        const before = await sound.serverTimeMs();
        const answer = await sound.fail({
          ...input,
          classification: "permanent",
        });
        return input.classification === "transient" &&
          answer.kind === "terminalFailed"
          ? { kind: "retryScheduled", delayUntilMs: before + 1_000 }
          : answer;
      },
      async failExecution(input) {
        await sound.failExecution({ ...input, failureCategory: "permanent" });
        return {
          kind: "retryScheduled",
          delayUntilMs: 1,
          nextAttemptIndex: 1,
        };
      },
    }),
  },
  {
    fault: "a complete under a lease long lost ends the execution",
    groups: [leasesConformance, outcomesConformance, invariantsConformance],
    spoil: (sound) => ({
      async complete(input) {
        try {
          await sound.complete(input);
        } catch (error) {
          if (!isEngineError(error, "stale_lease")) throw error;
          const { executionId } = decodeHandle(
            input.handle,
            sound.backendLabel(),
          );
          await sound.completeExecution({
            executionId,
            source: "operator_override",
            ...(input.payload === undefined
              ? {}
              : { resultPayload: input.payload }),
          });
        }
      },
    }),
  },
  {
    fault: "idempotency keys are forgotten",
    groups: [executionsConformance, invariantsConformance],
    spoil: (sound) => ({
      createExecution({ idempotencyKey: _forgotten, ...input }) {
        return sound.createExecution(input);
      },
    }),
  },
  {
    fault: "work goes by age alone",
    groups: [claimsConformance],
    spoil: (sound) => {
      const priorities = new Map<string, number>();
      return {
        async createExecution({ priority, ...input }) {
          const answer = await sound.createExecution(input);
          if (priority !== undefined && answer.kind === "created")
            priorities.set(answer.executionId, priority);
          return answer;
        },
        async describeExecution(ref) {
          const snapshot = await sound.describeExecution(ref);
          const priority = priorities.get(ref.executionId);
          return snapshot === undefined || priority === undefined
            ? snapshot
            : { ...snapshot, priority };
        },
      };
    },
  },
  {
    fault: "promotions are not logged, and the numbers closed up behind them",
    groups: [
      claimsConformance,
      eventsConformance,
      transitionsConformance,
      invariantsConformance,
    ],
    spoil: (sound) => ({
      async readEvents(input) {
        const { events } = await sound.readEvents(input);
        return {
          events: events
            .filter((event) => event.type !== "promoted")
            .map((event, index) => ({ ...event, seq: index + 1 })),
        };
      },
    }),
  },
  {
    fault: "a lapse is logged with the state it came from",
    groups: [eventsConformance, invariantsConformance],
    spoil: (sound) => ({
      async readEvents(input) {
        const { events } = await sound.readEvents(input);
        return {
          events: events.map((event) =>
            event.type === "lease_expired" && event.fromState !== undefined
              ? { ...event, toState: event.fromState }
              : event,
          ),
        };
      },
    }),
  },
  {
    fault: "one claim gives the same execution twice",
    groups: [claimsConformance, invariantsConformance],
    spoil: (sound) => ({
      async claimMany(input) {
        const answer = await sound.claimMany(input);
        const [first] = answer.claimed;
        return first === undefined
          ? answer
          : { ...answer, claimed: [...answer.claimed, first] };
      },
    }),
  },
  {
    fault: "a lapsed lease reads as held until somebody writes the lapse",
    groups: [readsConformance, leasesConformance],
    spoil: (sound) => ({
      async describeExecution(ref) {
        const snapshot = await sound.describeExecution(ref);
        if (
          snapshot?.stateVector.ownershipState !== "lease_expired_reclaimable"
        )
          return snapshot;
        const { events } = await sound.readEvents(ref);
        const written = events.at(-1)?.toState?.ownershipState;
        return written !== "leased"
          ? snapshot
          : withVector(snapshot, {
              ownershipState: "leased",
              blockingReason: "none",
              attemptState: "running_attempt",
            });
      },
    }),
  },
  {
    fault: "payloads are stored as text",
    groups: [executionsConformance],
    spoil: (sound) => ({
      createExecution: (input) =>
        sound.createExecution({
          ...input,
          ...(input.inputPayload === undefined
            ? {}
            : {
                inputPayload: Buffer.from(
                  Buffer.from(input.inputPayload).toString("utf8"),
                ),
              }),
        }),
    }),
  },
  {
    fault: "a refused call leaves a trace",
    groups: [leasesConformance, outcomesConformance, transitionsConformance],
    spoil: (sound) => ({
      async complete(input) {
        try {
          await sound.complete(input);
        } catch (error) {
          const { executionId } = decodeHandle(
            input.handle,
            sound.backendLabel(),
          );
          await sound
            .setExecutionTag({ executionId, key: "refused", value: "once" })
            .catch(() => undefined);
          throw error;
        }
      },
    }),
  },
  {
    fault: "one bad item spoils its batch",
    groups: [outcomesConformance],
    spoil: (sound) => ({
      async completeMany(input) {
        for (const { handle, payload } of input.items)
          await sound.complete({
            handle,
            ...(payload === undefined ? {} : { payload }),
          });
        return input.items.map(() => ({ kind: "completed" }));
      },
    }),
  },
  {
    fault: "a hold is answered and not kept",
    groups: [executionsConformance, transitionsConformance],
    spoil: () => ({ holdExecution: async () => ({ kind: "held" }) }),
  },
  {
    fault: "a block overwrites what stands below it",
    groups: [admissionConformance, transitionsConformance],
    spoil: (sound) => ({
      async blockExecutionForAdmission(input) {
        try {
          return await sound.blockExecutionForAdmission(input);
        } catch (error) {
          if (!isEngineError(error, "execution_not_eligible")) throw error;
          await sound
            .promoteDelayed({ executionId: input.executionId })
            .catch(() => undefined);
          return {
            kind: "blocked",
            executionId: input.executionId as never,
            reason: input.reason as never,
          };
        }
      },
    }),
  },
  {
    fault: "a namespace narrows nothing",
    groups: [readsConformance],
    spoil: (sound) => ({
      describeExecution: ({ executionId }) =>
        sound.describeExecution({ executionId }),
    }),
  },
  {
    fault: "a count is an estimate",
    groups: [tagsConformance, invariantsConformance],
    spoil: (sound) => ({
      countByTags: async (query) => {
        const count = await sound.countByTags(query);
        return count > 2 ? count - 1 : count;
      },
    }),
  },
  {
    fault: "a sweep always finds something to do",
    groups: [maintenanceConformance],
    spoil: (sound) => ({
      sweep: async (input) => ({
        ...(await sound.sweep(input)),
        processed: 1,
        more: false,
      }),
    }),
  },
  {
    fault: "an index entry always needs repair",
    groups: [maintenanceConformance, invariantsConformance],
    spoil: () => ({
      reconcileExecutionIndex: async () => ({ processed: 1, errors: 0 }),
    }),
  },
  {
    fault: "tokens of waitpoints are not looked at",
    groups: [signalsConformance],
    spoil: (sound) => ({
      async deliverSignal(input) {
        try {
          return await sound.deliverSignal(input);
        } catch (error) {
          if (!isEngineError(error, "invalid_token")) throw error;
          const { executionId, waitpointId, signalId, signalName } = input;
          return await sound.deliverApprovalSignal({
            executionId,
            waitpointId,
            signalId,
            signalName,
            idempotencySuffix: signalId,
          });
        }
      },
    }),
  },
  {
    fault: "keys of signals are forgotten",
    groups: [signalsConformance],
    spoil: (sound) => ({
      deliverSignal: ({ idempotencyKey: _forgotten, ...input }) =>
        sound.deliverSignal(input),
    }),
  },
  {
    fault: "the first signal resumes, whatever is waited for",
    groups: [suspensionConformance],
    spoil: (sound) => ({
      async deliverSignal(input) {
        const answer = await sound.deliverSignal(input);
        if (answer.kind !== "accepted") return answer;
        const { executionId } = input;
        if (answer.effect !== "appended_to_waitpoint") return answer;
        await sound.resumeExecution({ executionId });
        return { ...answer, effect: "resume_condition_satisfied" };
      },
    }),
  },
  {
    fault: "a suspend repeated is a suspend refused",
    groups: [suspensionConformance, invariantsConformance],
    spoil: (sound) => {
      const seen = new Set<string>();
      return {
        suspend({ idempotencyKey, ...input }) {
          if (idempotencyKey === undefined) return sound.suspend(input);
          const again = seen.has(idempotencyKey);
          seen.add(idempotencyKey);
          const suspensionId = crypto.randomUUID() as never;
          return sound.suspend(again ? { ...input, suspensionId } : input);
        },
      };
    },
  },
  {
    fault: "some suspended executions are missing from their list",
    groups: [suspensionConformance, invariantsConformance],
    spoil: (sound) => {
      const lost = everyThird();
      return {
        async listSuspended(input) {
          const page = await sound.listSuspended(input);
          return {
            ...page,
            entries: page.entries.filter((one) => !lost(one.executionId)),
          };
        },
      };
    },
  },
  {
    fault: "signals are observed in another order than they came",
    groups: [suspensionConformance],
    spoil: (sound) => ({
      observeSignals: async (input) =>
        (await sound.observeSignals(input)).reverse(),
    }),
  },
  {
    fault: "a timeout that escalates resumes",
    groups: [suspensionConformance],
    spoil: (sound) => ({
      async expireSuspension(ref) {
        const answer = await sound.expireSuspension(ref);
        if (answer.kind === "applied" && answer.behavior === "escalate")
          await sound.resumeExecution(ref);
        return answer;
      },
    }),
  },
  {
    fault: "a resume by an operator is answered and not done",
    groups: [suspensionConformance, transitionsConformance],
    spoil: () => ({
      resumeExecution: async () => ({
        kind: "resumed",
        publicState: "waiting",
      }),
    }),
  },
  {
    fault: "a key that was rotated out verifies on",
    groups: [secretsConformance],
    spoil: (sound) => ({
      rotateWaitpointHmacSecretAll: (input) =>
        sound.rotateWaitpointHmacSecretAll({
          ...input,
          graceMs: Math.max(input.graceMs ?? 0, 3_600_000),
        }),
    }),
  },
  {
    fault: "deliveries that satisfy are told twice",
    groups: [signalsConformance, invariantsConformance],
    spoil: (sound) => ({
      subscribeSignalDelivery: async (input) =>
        spoiled(await sound.subscribeSignalDelivery(input), ({ effect }) =>
          effect === "satisfied" ? 2 : 1,
        ),
    }),
  },
  {
    fault: "a tag that is replaced is not told to be gone",
    groups: [eventsConformance],
    spoil: (sound) => ({
      subscribeInstanceTags: async (input) =>
        spoiled(await sound.subscribeInstanceTags(input), ({ kind }) =>
          kind === "cleared" ? 0 : 1,
        ),
    }),
  },
  {
    fault: "dead workers' leases stay",
    groups: [workersConformance],
    spoil: (sound) => ({
      markWorkerDead: ({ expireLeases: _ignored, ...input }) =>
        sound.markWorkerDead(input),
    }),
  },
  {
    fault: "frames of whoever held the lease once are taken",
    groups: [streamsConformance, transitionsConformance],
    spoil: (sound) => ({
      appendFrame: (input) =>
        sound.appendFrame(input).catch((error: unknown) => {
          if (isEngineError(error, "stale_owner_cannot_append"))
            return { streamId: "1-0", frameCount: 1 };
          throw error;
        }),
    }),
  },
  {
    fault: "a frame that is sent again is there twice",
    groups: [streamsConformance],
    spoil: (sound) => ({
      appendFrame: ({ handle, frame: { seq: _seq, ...frame } }) =>
        sound.appendFrame({ handle, frame }),
    }),
  },
  {
    fault: "tails are not told of the end",
    groups: [streamsConformance],
    spoil: (sound) => ({
      async tailStream(input) {
        const page = await sound.tailStream(input);
        if (page.frames.length > 0) return page;
        const { closedAtMs: _at, closedReason: _reason, ...open } = page;
        return open;
      },
    }),
  },
  {
    fault: "an ended attempt's stream stands open",
    groups: [streamsConformance, invariantsConformance],
    spoil: (sound) =>
      withPages(
        sound,
        ({ closedAtMs: _at, closedReason: _r, ...open }) => open,
      ),
  },
  {
    fault: "a lapse closes a stream when somebody looks",
    groups: [streamsConformance, invariantsConformance],
    spoil: (sound) =>
      withPages(sound, async (page) =>
        page.closedReason === "lease_expired"
          ? { ...page, closedAtMs: await sound.serverTimeMs() }
          : page,
      ),
  },
  {
    fault: "best-effort frames crowd out durable ones",
    groups: [streamsConformance],
    spoil: (sound) =>
      withPages(sound, (page) =>
        page.frames.some(({ fields }) => fields["mode"] === "best_effort")
          ? { ...page, frames: page.frames.slice(-64) }
          : page,
      ),
  },
  {
    fault: "payloads go through text",
    groups: [streamsConformance],
    spoil: (sound) =>
      withPages(sound, (page) => ({
        ...page,
        frames: page.frames.map((frame) => ({
          ...frame,
          payload: Buffer.from(Buffer.from(frame.payload).toString("utf8")),
        })),
      })),
  },
  {
    fault: "the cursor of a page stands before its last frame",
    groups: [streamsConformance],
    spoil: (sound) =>
      withPages(sound, (page) => ({
        ...page,
        nextCursor: page.frames.at(-2)?.id ?? page.nextCursor,
      })),
  },
];

/** The same stores, seen through the layer that spoils them. */
export function brokenHarness(
  sound: BackendHarness,
  { fault, spoil }: BrokenBackend,
): BackendHarness {
  const inner = new WeakMap<EngineBackend, EngineBackend>();
  const layer = (backend: EngineBackend): EngineBackend => {
    const changed: Partial<Record<PropertyKey, unknown>> = spoil(backend);
    const proxy = new Proxy(backend, {
      get: (target, name) => changed[name] ?? Reflect.get(target, name),
    });
    inner.set(proxy, backend);
    return proxy;
  };
  const soundOne = (backend: EngineBackend) => inner.get(backend) ?? backend;
  const { reopen, beginTransaction } = sound;
  return {
    name: fault,
    open: async (options) => layer(await sound.open(options)),
    ...(reopen === undefined
      ? {}
      : {
          reopen: async (backend) =>
            layer(await reopen.call(sound, soundOne(backend))),
        }),
    passTime: (backend, ms) => sound.passTime(soundOne(backend), ms),
    ...(beginTransaction === undefined
      ? {}
      : {
          beginTransaction: (backend) =>
            beginTransaction.call(sound, soundOne(backend)),
        }),
  };
}
