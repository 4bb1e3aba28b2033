-- Timers: the deadline of an execution, and the time one attempt may take.

--- Re-checks everything inside the step: a stale look has no effect. Saves the row where it acts. `reason`: attempt_timeout or
--- execution_deadline; `only`: attempt and due_at, where it is to act on these alone; `random`: for the back-off of a retry.
--- @return "expired", "retryScheduled", "notYetDue", "notApplicable" or "alreadyTerminal"
function expiry.expire(tx, row, reason, random, only)
  local now = record.now(tx, row)
  local is_timeout = reason == "attempt_timeout"
  if state.is_terminal(row.home) then
    return "alreadyTerminal"
  end
  if is_timeout and state.phase(row.home) ~= "active" then
    return "notApplicable"
  end
  local due_at = row.deadline_at
  if is_timeout then
    due_at = row.timeout_at
  end
  if not due_at then
    return "notApplicable"
  end
  if only and (only.attempt and only.attempt ~= row.attempt or only.due_at and only.due_at ~= due_at) then
    return "notApplicable"
  end
  if due_at > now then
    return "notYetDue"
  end

  -- What only time had changed is written first, so that every store tells the same story.
  lifecycle.promote_if_due(tx, row, now)
  lifecycle.mark_lapsed_if_due(tx, row, now)
  if is_timeout and side.retry(tx, row).retryOnTimeout then
    local failed = {
      message = "attempt_timeout",
      category = "timeout",
      classification = "timeout",
      actor = "engine",
      random = random,
      closes = "expired",
    }
    local retry_at = failure.retry_time(tx, row, failed, now)
    if retry_at then
      failure.schedule_retry(tx, row, failed, retry_at, now, true)
      return "retryScheduled"
    end
  end
  side.change_details(row, { failureReason = reason, failureCategory = "timeout" })
  lifecycle.enter_terminal(tx, row, "expired", now, {
    actor = "engine",
    reason = reason,
    tell_holder = true,
    close_reason = "expired:" .. reason,
  })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return "expired"
end
