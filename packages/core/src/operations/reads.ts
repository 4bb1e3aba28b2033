import { z } from "zod";

import type { ExecutionId, LaneId } from "../ids.js";
import { LaneId as LaneIdSchema, Namespace } from "../ids.js";
import type {
  AttemptRecord,
  ExecutionContext,
  ExecutionInfo,
  ExecutionSnapshot,
} from "../snapshots.js";
import { PUBLIC_STATES, type PublicState } from "../state.js";
import { ExecutionRef, PageCursor, PageLimit, PartitionKey } from "./inputs.js";

export const ListExecutionsInput = z.object({
  partition: PartitionKey.optional(),
  namespace: Namespace.optional(),
  lanes: z.array(LaneIdSchema).optional(),
  publicStates: z.array(z.enum(PUBLIC_STATES)).optional(),
  cursor: PageCursor,
  limit: PageLimit,
});
export type ListExecutionsInput = z.input<typeof ListExecutionsInput>;

export const ListLanesInput = z.object({
  cursor: PageCursor,
  limit: PageLimit,
});
export type ListLanesInput = z.input<typeof ListLanesInput>;

/**
 * Reads. All derive what time alone has changed: from its due instant a delayed execution reads as waiting,
 * and a lapsed lease as `lease_expired_reclaimable`, stored yet or not. A stored record that cannot be
 * decoded is `corruption`, never a partial answer.
 */
export interface ReadOperations {
  /** Everything but payload and result. Missing, or of another namespace: nothing. */
  describeExecution(
    input: ExecutionRef,
  ): Promise<ExecutionSnapshot | undefined>;

  /** Input, kind and tags. @throws `execution_not_found` */
  readExecutionContext(input: ExecutionRef): Promise<ExecutionContext>;

  readExecutionInfo(input: ExecutionRef): Promise<ExecutionInfo | undefined>;

  readExecutionState(input: ExecutionRef): Promise<PublicState | undefined>;

  /**
   * Result bytes of the latest run, byte-exact; zero bytes are a result. Nothing when the execution is
   * missing or trimmed, its latest run did not succeed, or it stored none.
   */
  getExecutionResult(input: ExecutionRef): Promise<Uint8Array | undefined>;

  /** Pointer to the running or last attempt; 0 before the first claim. @throws `execution_not_found` */
  readCurrentAttemptIndex(input: ExecutionRef): Promise<number>;

  /** Attempts ever started, the running one included; the next new attempt gets this index. @throws `execution_not_found` */
  readTotalAttemptCount(input: ExecutionRef): Promise<number>;

  getExecutionNamespace(input: ExecutionRef): Promise<string | undefined>;

  /**
   * Ids in creation order, finished ones included until trimmed; at most 1 000 a page. The cursor is
   * exclusive; what is created meanwhile appears on a later page; nothing appears twice.
   */
  listExecutions(input: ListExecutionsInput): Promise<{
    readonly executions: ExecutionId[];
    readonly nextCursor?: string;
  }>;

  /** All attempts by index, earlier ones first. Missing execution: empty. */
  listAttempts(input: ExecutionRef): Promise<AttemptRecord[]>;

  /** Every lane that a submission ever used, in byte order. */
  listLanes(
    input: ListLanesInput,
  ): Promise<{ readonly lanes: LaneId[]; readonly nextCursor?: string }>;
}
