/** The contract: the sum of its groups. A fourth backend implements these and runs the conformance suite. */
import type { Partitioning } from "./partitions.js";
import type { AdminOperations } from "./operations/admin.js";
import type { AdmissionOperations } from "./operations/admission.js";
import type { ClaimOperations } from "./operations/claims.js";
import type { EventOperations } from "./operations/events.js";
import type { ExecutionOperations } from "./operations/executions.js";
import type { GrantOperations } from "./operations/grants.js";
import type { LeaseOperations } from "./operations/leases.js";
import type { MaintenanceOperations } from "./operations/maintenance.js";
import type { OutcomeOperations } from "./operations/outcomes.js";
import type { ReadOperations } from "./operations/reads.js";
import type { ReclaimOperations } from "./operations/reclaim.js";
import type { SecretOperations } from "./operations/secrets.js";
import type { SignalOperations } from "./operations/signals.js";
import type { SuspensionOperations } from "./operations/suspension.js";
import type { StreamOperations } from "./operations/streams.js";
import type { TagOperations } from "./operations/tags.js";
import type { WorkerOperations } from "./operations/workers.js";

export interface EngineOperations
  extends
    ExecutionOperations,
    ReadOperations,
    TagOperations,
    ClaimOperations,
    GrantOperations,
    AdmissionOperations,
    LeaseOperations,
    ReclaimOperations,
    OutcomeOperations,
    SuspensionOperations,
    SignalOperations,
    SecretOperations,
    WorkerOperations,
    EventOperations,
    StreamOperations,
    MaintenanceOperations,
    AdminOperations {}

/** An opened store. Whoever opened it closes it. */
export interface EngineBackend extends EngineOperations, AsyncDisposable {
  /** Fixed per deployment, stored at first boot. */
  readonly partitions: Partitioning;
  /** Ends waits and feeds, finishes calls in flight, frees the store. Idempotent. */
  close(): Promise<void>;
}
