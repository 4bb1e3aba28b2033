/**
 * When and by what the stream of an attempt was closed. Nothing is written for it: an attempt that has ended is a closed
 * stream. The instant never changes, and the reason only where a lost lease turns out to be a take-over or the end.
 * Source: specification 06 §8.
 */
import { HOME, HOMES, isTerminalHome, type Home } from "../state.js";
import type { AttemptLifecycle } from "../snapshots.js";
import type { StreamCloseReason } from "../streams.js";

export interface AttemptEnd {
  readonly closedAtMs: number;
  readonly closedReason: StreamCloseReason;
}

/** The attempt that an execution points at. */
export interface AttemptStanding {
  readonly home: Home;
  readonly leaseExpiresAtMs: number | undefined;
  /** When the loss of its lease was written down. */
  readonly lostAtMs: number | undefined;
  readonly completedAtMs: number | undefined;
  /** Kept where the execution's end does not tell it. */
  readonly ended?: AttemptEnd | undefined;
}

/** How it ended; nothing while it runs or is parked. */
export function endOfAttempt(
  attempt: AttemptStanding,
  nowMs: number,
): AttemptEnd | undefined {
  const { home, leaseExpiresAtMs: expiresAtMs = 0 } = attempt;
  if (isTerminalHome(home))
    return (
      attempt.ended ?? {
        closedAtMs: attempt.completedAtMs ?? 0,
        closedReason: REASON_OF_OUTCOME[HOMES[home].outcome],
      }
    );
  switch (home) {
    case HOME.active:
      return expiresAtMs > nowMs
        ? undefined
        : { closedAtMs: expiresAtMs, closedReason: "lease_expired" };
    // A worker that was declared dead loses its leases before they run out.
    case HOME.lapsed:
      return {
        closedAtMs: Math.min(expiresAtMs, attempt.lostAtMs ?? expiresAtMs),
        closedReason: "lease_expired",
      };
    case HOME.revoked:
      return {
        closedAtMs: attempt.lostAtMs ?? 0,
        closedReason: "lease_revoked",
      };
    default:
      return undefined;
  }
}

const REASON_OF_OUTCOME = {
  // Of an execution that has not ended; no terminal home has it.
  none: "attempt_failure",
  success: "attempt_success",
  failed: "attempt_failure",
  cancelled: "attempt_cancelled",
  expired: "expired",
  skipped: "dependency_impossible",
} as const satisfies Record<string, StreamCloseReason>;

/** Ends an attempt that may have ended before: who comes second can only name a loss more exactly. */
export function endAttempt(
  earlier: AttemptEnd | undefined,
  closedReason: StreamCloseReason,
  nowMs: number,
): AttemptEnd {
  if (earlier === undefined) return { closedAtMs: nowMs, closedReason };
  const wasLost =
    earlier.closedReason === "lease_expired" ||
    earlier.closedReason === "lease_revoked";
  const explains =
    closedReason === "reclaimed" || closedReason === "max_reclaims_exceeded";
  return wasLost && explains ? { ...earlier, closedReason } : earlier;
}

/** What an archive of attempts keeps of one. */
export interface ArchivedEnd {
  readonly state: AttemptLifecycle;
  readonly endedAtMs: number;
  /** Where they differ from what `state` and `endedAtMs` say. */
  readonly closedAtMs?: number | undefined;
  readonly closedReason?: StreamCloseReason | undefined;
}

export function endOfArchived(archived: ArchivedEnd): AttemptEnd {
  return {
    closedAtMs: archived.closedAtMs ?? archived.endedAtMs,
    closedReason: archived.closedReason ?? REASON_OF_STATE[archived.state],
  };
}

const REASON_OF_STATE = {
  // An archived attempt has ended; these two only complete the table.
  started: "attempt_failure",
  suspended: "attempt_failure",
  ended_success: "attempt_success",
  ended_failure: "attempt_failure",
  ended_cancelled: "attempt_cancelled",
  interrupted_reclaimed: "reclaimed",
} as const satisfies Record<AttemptLifecycle, StreamCloseReason>;

/** The fields of {@link ArchivedEnd} that have to be kept. */
export function archiveEnd(
  { closedAtMs, closedReason }: AttemptEnd,
  archived: Pick<ArchivedEnd, "state" | "endedAtMs">,
): Partial<AttemptEnd> {
  const told = endOfArchived(archived);
  return {
    ...(told.closedAtMs === closedAtMs ? {} : { closedAtMs }),
    ...(told.closedReason === closedReason ? {} : { closedReason }),
  };
}
