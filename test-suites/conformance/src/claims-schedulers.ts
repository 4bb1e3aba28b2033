import { expect } from "vitest";

import { eventTypes, everythingAbout } from "./assertions.js";
import {
  HOUR_MS,
  lane,
  lapsed,
  parked,
  submitted,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** What schedulers between work and workers see. */
export const schedulersConformance = group("scheduling by hand", (test) => {
  test("a scheduler gets a grant of the kind that the work needs", async (bench) => {
    const { backend } = bench;
    const granted = async (laneId: string) => {
      const answer = await backend.claimForWorker({
        ...WORKER,
        laneId,
        grantTtlMs: 5_000,
      });
      return answer.kind === "granted" ? answer.grant : answer;
    };
    const fresh = await submitted(backend);
    const resume = await parked(backend);
    const reclaim = await lapsed(bench);

    expect(await granted(fresh.laneId)).toMatchObject({
      kind: "claim",
      ...fresh,
    });
    expect(await granted(resume.laneId)).toMatchObject({
      kind: "resume",
      executionId: resume.executionId,
    });
    expect(await granted(reclaim.laneId)).toMatchObject({
      kind: "reclaim",
      executionId: reclaim.executionId,
    });
    expect(await eventTypes(backend, reclaim.executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "granted",
    ]);
    // Granted work is nobody else's for now.
    expect(await granted(fresh.laneId)).toMatchObject({ kind: "noWork" });
  });

  test("a scheduler hears whether a lane is empty or only closed to its worker", async ({
    backend,
  }) => {
    const ask = (laneId: string) =>
      backend.claimForWorker({ ...WORKER, laneId, grantTtlMs: 5_000 });
    expect(await ask(lane())).toEqual({ kind: "noWork", reason: "empty" });

    const { laneId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    expect(await ask(laneId)).toEqual({ kind: "noWork", reason: "blocked" });
  });

  test("a scan lists what could be claimed now, in order, and writes nothing", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const now = await backend.serverTimeMs();
    const low = await submitted(backend, { laneId });
    await bench.passTime(5);
    const due = await submitted(backend, { laneId, delayUntilMs: now + 50 });
    await bench.passTime(5);
    const high = await submitted(backend, { laneId, priority: 3 });
    const granted = await submitted(backend, { laneId, priority: 9 });
    const held = await submitted(backend, { laneId, priority: 9 });
    await submitted(backend, { laneId, delayUntilMs: now + HOUR_MS });
    await backend.issueClaimGrant({
      executionId: granted.executionId,
      ...WORKER,
      grantTtlMs: 60_000,
    });
    await backend.blockExecutionForAdmission({
      executionId: held.executionId,
      reason: "paused_by_operator",
    });
    await bench.passTime(50);
    const before = await everythingAbout(backend, due.executionId);

    const scan = await backend.scanEligibleExecutions({ laneId });

    expect(scan).toEqual([high.executionId, low.executionId, due.executionId]);
    expect(await everythingAbout(backend, due.executionId)).toEqual(before);
    expect(await backend.scanEligibleExecutions({ laneId, limit: 1 })).toEqual([
      high.executionId,
    ]);
    expect(await backend.scanEligibleExecutions({ laneId, limit: 0 })).toEqual(
      [],
    );
  });
});
