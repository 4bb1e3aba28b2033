/**
 * Random clients on one store, at the same time, with the clock moving between their turns; then everything that must hold
 * whatever they did. A failure prints its seed and path: run again with FLOWFABRIC_TEST_SEED.
 */
import { isEngineError, SWEEPS, type ErrorCode } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { lane, OTHER_WORKER } from "./builders.js";
import { runCommand } from "./command-runner.js";
import { commands, type Command } from "./commands.js";
import { group, type Bench } from "./harness.js";
import {
  checkAttempts,
  checkEvents,
  checkProgress,
  checkResult,
  checkSnapshot,
  type Looked,
} from "./invariant-checks.js";
import { checkStreams } from "./invariant-streams.js";
import { checkFeeds, checkLists, looksNow } from "./invariant-lists.js";
import {
  checkSignalFeed,
  checkSignals,
  checkWaitpoints,
} from "./invariant-suspensions.js";
import { World } from "./model.js";
import { reproducible, scaled } from "./settings.js";
import { homeOf } from "./states.js";
import { keyed } from "./suspension-builders.js";

/** Refusals that a client has to live with; every other one is a fault of the store. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "execution_not_active",
  "execution_not_eligible",
  "execution_not_in_eligible_set",
  "execution_not_leaseable",
  "execution_not_terminal",
  "max_replays_exhausted",
  "stale_lease",
  "lease_expired",
  "lease_revoked",
  "stream_closed",
  "stale_owner_cannot_append",
  "lease_conflict",
  "grant_already_exists",
  "invalid_claim_grant",
  "claim_grant_expired",
  "capability_mismatch",
  "use_claim_resumed_execution",
  "not_a_resumed_execution",
  "execution_not_suspended",
  "target_not_signalable",
  "waitpoint_closed",
  "waitpoint_not_found",
  "waitpoint_not_pending",
  "pending_waitpoint_expired",
]);

async function tolerated(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!isEngineError(error) || !REFUSALS.has(error.code)) throw error;
  }
}

interface Round {
  /** How far the clock moves before it. */
  readonly passMs: number;
  /** One list per client; the lists run side by side. */
  readonly clients: readonly (readonly Command[])[];
}

const CLIENTS = 3;

function rounds(passMs: fc.Arbitrary<number>): fc.Arbitrary<Round[]> {
  return fc.array(
    fc.record({
      passMs,
      clients: fc.array(fc.array(commands, { maxLength: 6 }), {
        minLength: CLIENTS,
        maxLength: CLIENTS,
      }),
    }),
    { minLength: 1, maxLength: 10 },
  );
}

async function playRounds(
  bench: Bench,
  world: World,
  script: readonly Round[],
): Promise<void> {
  let looked = new Map<string, Looked>();
  for (const [index, round] of script.entries()) {
    await bench.passTime(round.passMs);
    await Promise.all(
      round.clients.map(async (list, client) => {
        for (const command of list) {
          await tolerated(runCommand(world, world.clients[client]!, command));
        }
      }),
    );
    if (index % 4 === 3) looked = await checkAll(world, looked);
  }
  await checkAll(world, looked);
}

/** Every invariant over every execution, then every list and feed against them. */
async function checkAll(
  world: World,
  before: ReadonlyMap<string, Looked>,
): Promise<Map<string, Looked>> {
  // Through another connection than most writes went.
  const backend = world.clients.at(-1)!;
  const looked = new Map<string, Looked>();
  for (const look of await looksNow(backend, world)) {
    checkSnapshot(look);
    checkAttempts(look);
    checkEvents(look);
    await checkResult(backend, look);
    await checkWaitpoints(backend, look);
    await checkStreams(backend, world, look);
    const { executionId } = look.snapshot;
    const earlier = before.get(executionId);
    if (earlier !== undefined) checkProgress(earlier, look);
    looked.set(executionId, look);
  }
  checkAnswers(world, looked);
  checkSignals(world, looked);
  await checkLists(backend, world);
  await checkFeeds(backend, looked);
  await checkSignalFeed(backend, looked);
  expect(await backend.reconcileExecutionIndex({}), "I14–I21").toEqual({
    processed: 0,
    errors: 0,
  });
  return looked;
}

/** I26, I27, I44, I56: what clients were told agrees with what is stored. */
function checkAnswers(world: World, looked: ReadonlyMap<string, Looked>): void {
  const leases = new Set<string>();
  for (const claimed of world.claims) {
    const lease = `${claimed.executionId} ${claimed.leaseEpoch}`;
    expect(leases.has(lease), `I27 ${lease} was given to two`).toBe(false);
    leases.add(lease);
    const { attempts, events } = looked.get(claimed.executionId)!;
    const event = events.find(
      ({ type, leaseEpoch }) =>
        ["claimed", "resumed", "reclaimed"].includes(type) &&
        leaseEpoch === claimed.leaseEpoch,
    );
    expect(event, "an answered claim is an event").toMatchObject({
      type: { fresh: "claimed", resumed: "resumed", reclaimed: "reclaimed" }[
        claimed.kind
      ],
      attemptIndex: claimed.attemptIndex,
    });
    expect(attempts[claimed.attemptIndex]).toMatchObject({
      attemptId: claimed.attemptId,
      attemptType: claimed.attemptType,
    });
  }
  for (const [scope, answers] of world.keyed) {
    expect(
      new Set(answers.map((answer) => answer.executionId)).size,
      `I56 ${scope}`,
    ).toBe(1);
    expect(
      answers.filter((answer) => answer.kind === "created").length,
      `I56 ${scope}`,
    ).toBe(1);
  }
}

/** I57: run again, every sweep finds nothing and changes nothing. */
async function checkSweepsSettle(bench: Bench, world: World): Promise<void> {
  const { backend } = bench;
  // So far that nothing more falls due by itself while it is looked.
  await bench.passTime(3_600_000);
  for (let pass = 0; ; pass++) {
    let processed = 0;
    for (const name of SWEEPS)
      processed += (await backend.sweep({ name })).processed;
    if (processed === 0) break;
    expect(pass, "sweeps come to an end").toBeLessThan(20);
  }
  const before = await looksNow(backend, world);
  for (const name of SWEEPS)
    expect((await backend.sweep({ name })).processed, name).toBe(0);
  expect(await looksNow(backend, world), "I57").toEqual(before);
}

/** I23: whatever state it was left in, a worker and an operator bring every execution to its end. */
async function checkEverythingEnds(bench: Bench, world: World): Promise<void> {
  const { backend } = bench;
  for (let turn = 0; ; turn++) {
    const open = (await looksNow(backend, world)).filter(
      ({ snapshot }) => snapshot.completedAtMs === undefined,
    );
    if (open.length === 0) return;
    const left = open.map(({ snapshot }) => homeOf(snapshot.stateVector));
    expect(turn, `still open: ${left.join(", ")}`).toBeLessThan(30);
    for (const { snapshot } of open) {
      const { executionId, blockingReason } = snapshot;
      if (snapshot.publicState === "suspended")
        await backend.resumeExecution({ executionId });
      else if (snapshot.operatorHold)
        await backend.unholdExecution({ executionId });
      else if (
        snapshot.stateVector.eligibilityState.startsWith("blocked_by_") &&
        blockingReason !== undefined
      )
        await backend.unblockExecution({
          executionId,
          expectedBlockingReason: blockingReason,
        });
    }
    const { claimed } = await backend.claimMany({
      ...OTHER_WORKER,
      lanes: [...world.lanes],
      capabilities: ["eu", "gpu"],
      max: 100,
      leaseTtlMs: 60_000,
    });
    // An attempt that was resumed with nothing left of its time may end before its holder gets there.
    for (const { handle } of claimed)
      await tolerated(backend.complete({ handle }));
    await bench.passTime(61_000);
    for (const name of SWEEPS) await backend.sweep({ name });
  }
}

async function run(bench: Bench, script: readonly Round[]): Promise<void> {
  // A store of its own per sequence, for shrinking repeats them.
  const own = await bench.fresh();
  try {
    const clients = [own.backend, own.backend, await own.reopen()];
    const world = new World(clients, [lane(), lane()]);
    await keyed(own.backend);
    await playRounds(own, world, script);
    await checkSweepsSettle(own, world);
    await checkEverythingEnds(own, world);
  } finally {
    await own.close();
  }
}

export const invariantsConformance = group("invariants", (test) => {
  const property = (
    passMs: fc.Arbitrary<number>,
    full: number,
    least: number,
  ) => ({
    timeoutMs: 600_000,
    body: async (bench: Bench) => {
      await fc.assert(
        fc.asyncProperty(rounds(passMs), (script) => run(bench, script)),
        {
          ...reproducible(),
          numRuns: scaled(full, least),
          // Shrinking plays many sequences again; past this it reports the smallest it has.
          interruptAfterTimeLimit: 180_000,
        },
      );
    },
  });
  const forward = property(
    fc.oneof(fc.constant(0), fc.constantFrom(250, 900, 2_500, 30_000)),
    300,
    5,
  );
  const backward = property(
    fc.constantFrom(0, 500, 3_000, -400, -2_000, 5_000),
    100,
    3,
  );

  test(
    "whatever clients do at the same time, the invariants hold and everything can be brought to its end",
    { timeoutMs: forward.timeoutMs },
    forward.body,
  );

  test(
    "nor does a clock break them that steps back",
    { timeoutMs: backward.timeoutMs },
    backward.body,
  );
});
