/** Which worker may take which work. Source: specification 01 §8.3, 09 §16.5. */
import type { CapabilityVerdict } from "../operations/admission.js";

/** Required tokens that the worker lacks, in the order required; none: it matches. */
export function missingCapabilities(
  required: readonly string[],
  offered: ReadonlySet<string>,
): string[] {
  return required.filter((token) => !offered.has(token));
}

export interface LiveWorker {
  readonly workerInstanceId: string;
  readonly lanes: readonly string[];
  readonly capabilities: readonly string[];
}

/** One worker must have every token; a union over several does not count. */
export function coverage(
  required: readonly string[],
  laneId: string,
  live: readonly LiveWorker[],
): CapabilityVerdict {
  if (required.length === 0) return "not_applicable";
  if (live.length === 0) return "no_workers";
  const onLane = live.filter((worker) => worker.lanes.includes(laneId));
  if (onLane.length === 0) return "no_worker_on_lane";
  const covered = onLane.some(
    (worker) =>
      missingCapabilities(required, new Set(worker.capabilities)).length === 0,
  );
  return covered ? "covered" : "no_superset";
}
