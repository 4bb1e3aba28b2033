-- Mirrors core/src/rules/stream-close.ts: when and by what the stream of an attempt was closed. An end has closedAtMs and
-- closedReason, as details and archived attempts keep them.

local REASON_OF_OUTCOME = {
  success = "attempt_success",
  failed = "attempt_failure",
  cancelled = "attempt_cancelled",
  expired = "expired",
  skipped = "dependency_impossible",
}

local REASON_OF_STATE = {
  started = "attempt_failure",
  suspended = "attempt_failure",
  ended_success = "attempt_success",
  ended_failure = "attempt_failure",
  ended_cancelled = "attempt_cancelled",
  interrupted_reclaimed = "reclaimed",
}

local function ending(at, reason)
  return { closedAtMs = at, closedReason = reason }
end

--- How the attempt that a row points at ended; nothing while it runs or is parked. `kept`: what the row's details say of it.
function closing.end_of_attempt(row, kept, now)
  local HOME = state.HOME
  if state.is_terminal(row.home) then
    if kept.closedReason then
      return ending(kept.closedAtMs, kept.closedReason)
    end
    return ending(row.completed_at or 0, REASON_OF_OUTCOME[state.outcome(row.home)])
  end
  local expires_at = row.lease_expires_at or 0
  if row.home == HOME.active then
    return expires_at <= now and ending(expires_at, "lease_expired") or nil
  end
  -- A worker that was declared dead loses its leases before they run out.
  if row.home == HOME.lapsed then
    return ending(math.min(expires_at, row.lost_at or expires_at), "lease_expired")
  end
  if row.home == HOME.revoked then
    return ending(row.lost_at or 0, "lease_revoked")
  end
  return nil
end

--- Ends an attempt that may have ended before: who comes second can only name a loss more exactly.
function closing.end_attempt(earlier, reason, now)
  if not earlier then
    return ending(now, reason)
  end
  local was_lost = earlier.closedReason == "lease_expired" or earlier.closedReason == "lease_revoked"
  local explains = reason == "reclaimed" or reason == "max_reclaims_exceeded"
  return was_lost and explains and ending(earlier.closedAtMs, reason) or earlier
end

--- How an archived attempt ended.
function closing.end_of_archived(archived)
  return ending(archived.closedAtMs or archived.endedAtMs, archived.closedReason or REASON_OF_STATE[archived.state])
end

--- Keeps what the state and the end of an archived attempt do not tell.
function closing.archive(archived, closed)
  local told = closing.end_of_archived(archived)
  if told.closedAtMs ~= closed.closedAtMs then
    archived.closedAtMs = closed.closedAtMs
  end
  if told.closedReason ~= closed.closedReason then
    archived.closedReason = closed.closedReason
  end
end
