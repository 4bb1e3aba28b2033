/** The record of an execution as it leaves the server. */
import { parseExecutionId } from "@flowfabric/core";
import type { ExecutionName, ExecutionRecord } from "@flowfabric/core/records";

import { optionalText, textOf, type Reply } from "./connection.js";

/** In the order of record.COLUMNS in lua/lib/record.lua; behind those ref, tags and details. */
export function toExecutionRow(values: readonly Reply[]): ExecutionRecord {
  const { id, partition } = readRef(values[35]);
  return {
    id,
    partition,
    route: values[0],
    kind: textOf(values[1]!),
    created_at: values[2],
    home: values[3],
    score: values[4],
    reason: values[5],
    attempt_state: values[6],
    priority: values[7],
    events: values[8],
    epoch: values[9],
    attempt: values[10],
    attempts: values[11],
    retries: values[12],
    reclaims: values[13],
    reclaims_total: values[14],
    replays: values[15],
    holds: values[16],
    transitioned_at: values[17],
    mutated_at: values[18],
    lease: values[19],
    attempt_id: values[20],
    holder: values[21],
    leased_at: values[22],
    lease_expires_at: values[23],
    renewed_at: values[24],
    renew_by: values[25],
    attempt_type: values[26],
    attempt_at: values[27],
    started_at: values[28],
    completed_at: values[29],
    delay_until: values[30],
    deadline_at: values[31],
    timeout_at: values[32],
    progress_at: values[33],
    seq: values[34],
    tags: optionalText(values[36]),
    details: optionalText(values[37]),
  } as ExecutionRecord;
}

/** How the server knows an execution: its uuid and, in two bytes, its partition. */
export function refOf(executionId: string): Buffer {
  const { partition, uuid } = parseExecutionId(executionId)!;
  const ref = Buffer.allocUnsafe(18);
  ref.write(uuid.replaceAll("-", ""), "hex");
  ref.writeUInt16BE(partition, 16);
  return ref;
}

export function readRef(ref: Reply | undefined): ExecutionName {
  const bytes = ref as Buffer;
  return { id: bytes.subarray(0, 16), partition: bytes.readUInt16BE(16) };
}
