/** What must hold of the streams of an execution, whatever random clients did. */
import type {
  AttemptRecord,
  EngineBackend,
  StreamFrames,
} from "@flowfabric/core";
import { expect } from "vitest";

import type { Looked } from "./invariant-checks.js";
import type { World } from "./model.js";
import { isLater, read, textsOf } from "./stream-builders.js";

/** I42 and 06 K2: a stream is closed once its attempt has ended, and for good; its frames are those that were accepted. */
export async function checkStreams(
  backend: EngineBackend,
  world: World,
  look: Looked,
): Promise<void> {
  const { executionId } = look.snapshot;
  for (const attempt of look.attempts) {
    const { attemptIndex } = attempt;
    const page = await read(backend, { executionId, attemptIndex });
    const name = `${executionId} attempt ${attemptIndex}`;
    checkFrames(world, name, page);
    checkEnd(look, attempt, page, name);
    checkEndStays(world, look, attempt, page, name);
  }
}

function checkFrames(world: World, name: string, page: StreamFrames): void {
  const ids = page.frames.map(({ id }) => id);
  ids.forEach((id, index) => {
    if (index > 0) expect(isLater(ids[index - 1]!, id), name).toBe(true);
  });
  const accepted = [...(world.frames.get(name) ?? [])].sort(([a], [b]) =>
    isLater(a, b) ? -1 : 1,
  );
  expect(ids, name).toEqual(accepted.map(([id]) => id));
  expect(textsOf(page), name).toEqual(accepted.map(([, text]) => text));
}

function checkEnd(
  { snapshot }: Looked,
  attempt: AttemptRecord,
  page: StreamFrames,
  name: string,
): void {
  const { lifecyclePhase, ownershipState } = snapshot.stateVector;
  const isCurrent =
    snapshot.currentAttempt?.attemptIndex === attempt.attemptIndex;
  const isOver =
    !isCurrent ||
    lifecyclePhase === "terminal" ||
    ownershipState === "lease_expired_reclaimable" ||
    ownershipState === "lease_revoked";
  // Time goes on between the look and the read: a lease may have run out since.
  if (!isOver && page.closedReason === "lease_expired")
    expect(page.closedAtMs, name).toBe(snapshot.currentLease?.expiresAtMs);
  else expect(page.closedAtMs !== undefined, `I42 ${name}`).toBe(isOver);
}

/** A lapse that only time has told of is taken back where the clock is; everything else stays. */
function checkEndStays(
  world: World,
  { events }: Looked,
  { attemptIndex, leaseEpoch }: AttemptRecord,
  { closedAtMs, closedReason }: StreamFrames,
  name: string,
): void {
  const earlier = world.ends.get(name);
  if (earlier !== undefined) {
    const isExplained =
      closedReason !== earlier.closedReason &&
      ["lease_expired", "lease_revoked"].includes(earlier.closedReason!) &&
      ["reclaimed", "max_reclaims_exceeded"].includes(closedReason!);
    expect({ closedAtMs, closedReason }, `K2 ${name}`).toEqual({
      ...earlier,
      ...(isExplained ? { closedReason } : {}),
    });
  }
  const isWritten =
    closedReason !== "lease_expired" ||
    events.some(
      (event) =>
        event.type === "lease_expired" &&
        event.attemptIndex === attemptIndex &&
        event.leaseEpoch === leaseEpoch,
    );
  if (closedAtMs !== undefined && isWritten)
    world.ends.set(name, { closedAtMs, closedReason });
}
