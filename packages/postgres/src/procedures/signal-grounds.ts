/** What a signal is judged by, read by one statement, and how it is judged. */
import {
  effectiveSignalLimit,
  HOME,
  isTerminalHome,
  judgeSignal,
  type ExecutionId,
  type Keystore,
} from "@flowfabric/core";
import {
  toKeystore,
  uuidToBytes,
  waitpointState,
  type ExecutionRow,
  type Signal,
  type SecretRow,
  type SuspensionRow,
  type WaitpointRow,
} from "@flowfabric/core/sql";

import type { SqlValue } from "../session.js";
import { namedBy } from "./executions.js";
import { toPolicy } from "./policy.js";

/** What a signal is judged by. */
export interface SignalGrounds {
  /** As it is without a lock; whoever holds one has read it before. */
  readonly row: ExecutionRow | undefined;
  /** Changes with every change of the row. */
  readonly version: string;
  readonly readAtMs: number;
  readonly waitpoint: WaitpointRow | undefined;
  /** The same signal by its id, for good. */
  readonly sameId: Earlier | undefined;
  /** Or by its key, while that is remembered. */
  readonly sameKey: RememberedSignal | undefined;
  readonly suspension: SuspensionRow | undefined;
  readonly policy: string | null;
  /** Of the open condition, those that have counted the signal's source. */
  readonly leavesOfSource: readonly number[];
  readonly keystore: Keystore;
}

export interface Earlier {
  readonly n: number;
  readonly id: Uint8Array;
  readonly repeats: number;
}

interface RememberedSignal extends Earlier {
  readonly expires_at: number;
}

/**
 * All of it by one statement, which asks for the execution by its id: it can leave behind the one that locks the row
 * without waiting for that, and see everything as it is once the row is locked.
 */
export async function readGrounds(
  ask: (sql: string, ...values: SqlValue[]) => Promise<unknown[]>,
  executionId: ExecutionId,
  waitpointId: string,
  { signalId, idempotencyKey = "", sourceType, sourceIdentity }: Signal,
): Promise<SignalGrounds> {
  const [found] = (await ask(
    READ_GROUNDS,
    ...namedBy(executionId),
    waitpointId,
    signalId,
    idempotencyKey === "" ? null : idempotencyKey,
    sourceType,
    sourceIdentity,
  )) as [FoundGrounds];
  return {
    row: fromJson<ExecutionRow>(found.execution, "id", "lease", "attempt_id"),
    version: found.version,
    readAtMs: found.now,
    waitpoint: fromJson<WaitpointRow>(found.waitpoint, "id", "suspension"),
    sameId: fromJson<Earlier>(found.same_id, "id"),
    sameKey: fromJson<RememberedSignal>(found.same_key, "id"),
    suspension: fromJson<SuspensionRow>(found.suspension, "id"),
    policy: found.policy,
    leavesOfSource: JSON.parse(found.leaves ?? "[]") as number[],
    keystore: toKeystore(JSON.parse(found.secrets ?? "[]") as SecretRow[]),
  };
}

/** Records as JSON: the driver takes longer for a hundred columns than all else that a delivery does here. */
interface FoundGrounds {
  readonly execution: string | null;
  readonly version: string;
  readonly now: number;
  readonly waitpoint: string | null;
  readonly same_id: string | null;
  readonly same_key: string | null;
  readonly suspension: string | null;
  readonly policy: string | null;
  readonly leaves: string | null;
  readonly secrets: string | null;
}

/** A record as the driver would have read it, uuids as bytes. Nothing where the statement found none. */
function fromJson<Row>(
  text: string | null,
  ...uuids: readonly (keyof Row & string)[]
): Row | undefined {
  if (text === null) return undefined;
  const record = JSON.parse(text) as Record<string, unknown>;
  for (const column of uuids)
    if (record[column] !== null)
      record[column] = uuidToBytes(record[column] as string);
  return record as Row;
}

/** What judging needs once the waitpoint is known to be there. */
export type Found = SignalGrounds & { readonly waitpoint: WaitpointRow };

/** The same signal, accepted before. */
export function earlierOf(
  { sameId, sameKey }: SignalGrounds,
  nowMs: number,
): Earlier | undefined {
  return (
    sameId ??
    (sameKey !== undefined && sameKey.expires_at > nowMs ? sameKey : undefined)
  );
}

/** What becomes of one that was not. */
export function judge(
  row: ExecutionRow,
  grounds: Found,
  signal: Signal,
  nowMs: number,
): ReturnType<typeof judgeSignal> {
  const { waitpoint, policy } = grounds;
  const suspension = openSuspension(row, grounds);
  return judgeSignal({
    terminal: isTerminalHome(row.home),
    waitpointState: waitpointState(waitpoint, nowMs),
    awaited:
      suspension !== undefined &&
      waitpoint.suspension !== null &&
      Buffer.compare(suspension.id, waitpoint.suspension) === 0,
    signals: row.signals ?? 0,
    limit: effectiveSignalLimit(
      toPolicy(policy).maxSignalsPerExecution,
      signal.maxSignalsPerExecution,
    ),
  });
}

export function openSuspension(
  row: ExecutionRow,
  { suspension }: SignalGrounds,
): SuspensionRow | undefined {
  return row.home === HOME.suspended ? suspension : undefined;
}

const READ_GROUNDS = `
  WITH given AS MATERIALIZED (
    SELECT ?::UUID AS id, ?::INTEGER AS partition, ?::UUID AS waitpoint, ?::UUID AS signal, ?::TEXT AS signal_key,
      ?::TEXT AS source_type, ?::TEXT AS source_identity
  )
  SELECT (
      SELECT row_to_json(e)::TEXT
      WHERE e.seq IS NOT NULL
    ) AS execution, e.xmin::TEXT AS version, now_ms() AS now, (
      SELECT row_to_json(w)::TEXT
      FROM waitpoints AS w
      WHERE w.seq = e.seq AND w.id = given.waitpoint
    ) AS waitpoint, (
      SELECT json_build_object('n', n, 'id', s.id, 'repeats', repeats)::TEXT
      FROM signals AS s
      WHERE s.seq = e.seq AND s.id = given.signal
    ) AS same_id, (
      SELECT json_build_object('n', s.n, 'id', s.id, 'repeats', repeats, 'expires_at', expires_at)::TEXT
      FROM signal_keys AS k
      JOIN signals AS s ON s.seq = k.seq AND s.n = k.n
      WHERE k.seq = e.seq AND k.waitpoint = given.waitpoint AND k.signal_key = given.signal_key
    ) AS same_key, (
      SELECT row_to_json(s)::TEXT
      FROM suspensions AS s
      WHERE s.seq = e.seq
    ) AS suspension, (
      SELECT policy
      FROM inputs
      WHERE inputs.seq = e.seq
    ) AS policy, (
      SELECT json_agg(leaf)::TEXT
      FROM signal_sources AS counted
      WHERE counted.seq = e.seq AND counted.source_type = given.source_type
        AND counted.source_identity = given.source_identity
    ) AS leaves, (
      SELECT json_agg(installed)::TEXT
      FROM (
        SELECT *
        FROM waitpoint_secrets
        ORDER BY kid
      ) AS installed
    ) AS secrets
  FROM given
  LEFT JOIN executions AS e ON e.id = given.id AND e.partition = given.partition`;
