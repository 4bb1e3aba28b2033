/** The way out of a suspension that is no end: by a signal, an operator or a timeout. */
import {
  changeDetails,
  type ExecutionRow,
  placeRunnable,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { closeSuspension, type SuspensionEnd } from "./suspensions.js";

/** The interrupted attempt may go on: at once, or after a delay. The caller tells of it and saves the row. */
export function resumeSuspended(
  tx: Session,
  row: ExecutionRow,
  end: SuspensionEnd,
  delayMs: number,
  nowMs: number,
): void {
  closeSuspension(tx, row, end, nowMs);
  leaveSuspension(row, delayMs, nowMs);
}

/** Its part of the row. */
export function leaveSuspension(
  row: ExecutionRow,
  delayMs: number,
  nowMs: number,
): void {
  row.timeout_at = null;
  row.delay_until = delayMs > 0 ? nowMs + delayMs : null;
  changeDetails(row, { blockingDetail: undefined });
  placeRunnable(row, nowMs, "waiting_for_resume_delay");
}
