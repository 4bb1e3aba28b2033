/** Who works: as leases name it, and as claims tell it. */
import type { WorkerId, WorkerInstanceId } from "../ids.js";

/** Who has a lease. */
export interface Holder {
  readonly workerId: WorkerId;
  readonly workerInstanceId: WorkerInstanceId;
}

/** Who claims, and what it can do. */
export interface Presence {
  readonly workerId: string;
  readonly workerInstanceId: string;
  readonly namespace?: string | undefined;
  readonly lanes: readonly string[];
  readonly capabilities: readonly string[];
}
