import { z } from "zod";

import type { TaskEndedNotice } from "../events.js";
import { Namespace, WorkerId, WorkerInstanceId } from "../ids.js";
import {
  byteLength,
  DEAD_REASON_MAX_BYTES,
  WORKER_PAGE_DEFAULT,
  WORKER_PAGE_MAX,
  WORKER_TTL_MS_MAX,
  WORKER_TTL_MS_MIN,
} from "../limits.js";
import type { WorkerInfo } from "../snapshots.js";
import { Lanes, Signal, WorkerCapabilities } from "./inputs.js";

export const RegisterWorkerInput = z.object({
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  lanes: Lanes,
  capabilities: WorkerCapabilities,
  /** 1 000 … 3 600 000 ms; typical: twice the lease TTL. */
  livenessTtlMs: z.number().int().min(WORKER_TTL_MS_MIN).max(WORKER_TTL_MS_MAX),
  namespace: Namespace,
});
export type RegisterWorkerInput = z.input<typeof RegisterWorkerInput>;

export const WorkerRef = z.object({
  workerInstanceId: WorkerInstanceId,
  namespace: Namespace,
});
export type WorkerRef = z.input<typeof WorkerRef>;

export const MarkWorkerDeadInput = WorkerRef.extend({
  reason: z
    .string()
    .refine(
      (text) => byteLength(text) <= DEAD_REASON_MAX_BYTES,
      `at most ${DEAD_REASON_MAX_BYTES} bytes`,
    )
    // eslint-disable-next-line no-control-regex -- control characters are what is looked for
    .refine(
      (text) => !/[\u0000-\u001f\u007f]/.test(text),
      "must not contain control characters",
    ),
  /** Mark its leases lapsed at once instead of waiting for their expiry. */
  expireLeases: z.boolean().default(false),
});
export type MarkWorkerDeadInput = z.input<typeof MarkWorkerDeadInput>;

export const ListWorkersInput = z.object({
  namespace: Namespace.optional(),
  /** The last instance id of the page before; exclusive. */
  after: WorkerInstanceId.optional(),
  limit: z
    .number()
    .int()
    .min(0)
    .default(WORKER_PAGE_DEFAULT)
    .transform((limit) => Math.min(limit, WORKER_PAGE_MAX)),
});
export type ListWorkersInput = z.input<typeof ListWorkersInput>;

export const WatchWorkerInput = z.object({
  workerInstanceId: WorkerInstanceId,
  signal: Signal.optional(),
});
export type WatchWorkerInput = z.input<typeof WatchWorkerInput>;

/** Who is alive and what they can do. Advisory: leases are governed by their own expiry only. */
export interface WorkerOperations {
  /**
   * Records or replaces a live worker. Wakes executions that waited for its capabilities within 1 s.
   *
   * Checks: `invalid_input`, `invalid_capabilities`; the instance is live under another worker id: `invalid_input`,
   * `instance_id reassigned`.
   * Repeat: `refreshed`; `registeredAtMs` is kept.
   */
  registerWorker(
    input: RegisterWorkerInput,
  ): Promise<{ readonly kind: "registered" | "refreshed" }>;

  /** Extends by the stored TTL. After a lapse or death: `notRegistered`, register again. */
  heartbeatWorker(
    input: WorkerRef,
  ): Promise<
    | { readonly kind: "refreshed"; readonly nextExpiryMs: number }
    | { readonly kind: "notRegistered" }
  >;

  /** Clean exit; leases are untouched. Repeat: `notRegistered`. */
  deregisterWorker(
    input: WorkerRef,
  ): Promise<{ readonly kind: "deregistered" | "notRegistered" }>;

  /**
   * Removes a registration that will not come back; with `expireLeases` its leases are marked lapsed in the same
   * step and can be taken over at once.
   *
   * Checks: `invalid_input` (reason at most 256 bytes without control characters). Repeat: `notRegistered`.
   */
  markWorkerDead(
    input: MarkWorkerDeadInput,
  ): Promise<{ readonly kind: "marked" | "notRegistered" }>;

  /** Live workers by instance id; without a namespace, of all. */
  listWorkers(
    input: ListWorkersInput,
  ): Promise<{ readonly entries: WorkerInfo[]; readonly nextCursor?: string }>;

  /**
   * Tells one instance, by push, that executions it holds were cancelled, expired, revoked, marked lapsed or taken
   * over. A hint only: renewal finds out the same. Ends when `signal` aborts or the iterator is closed.
   */
  watchWorker(input: WatchWorkerInput): AsyncIterable<TaskEndedNotice>;
}
