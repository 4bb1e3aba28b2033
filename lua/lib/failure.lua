-- A failed or timed-out attempt: another try, or the end. A failure: message, category, classification, actor, random, and closes
-- where it is not the failure that closes the attempt's stream.

function failure.retry_time(tx, row, failed, now)
  return retry.at(side.retry(tx, row).retryPolicy, {
    classification = failed.classification,
    category = failed.category,
    retries = row.retries,
    now = now,
    deadline_at = row.deadline_at,
  }, failed.random)
end

--- Ends the running attempt as failed; the fence was checked. Saves the row.
--- @return when the retry starts, or nothing where the execution has failed
function failure.fail_attempt(tx, row, failed, now)
  local delay_until = failure.retry_time(tx, row, failed, now)
  if delay_until then
    failure.schedule_retry(tx, row, failed, delay_until, now)
    return delay_until
  end
  side.change_details(row, { failureReason = failed.message, failureCategory = failed.category })
  lifecycle.enter_terminal(tx, row, "failed", now, { actor = failed.actor, reason = failed.category })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return nil
end

--- The attempt is over, its successor begins with the next claim. Saves the row.
function failure.schedule_retry(tx, row, failed, delay_until, now, tell_holder)
  local lease, holder = row.lease, row.holder
  lifecycle.archive_attempt(tx, row, now, {
    state = "ended_failure",
    failureReason = failed.message,
    failureCategory = failed.category,
    closes = failed.closes or "attempt_failure",
  })
  side.change_details(row, {
    failureReason = failed.message,
    failureCategory = failed.category,
    nextReason = failed.message,
    nextPrevious = row.attempt,
  })
  lifecycle.release_lease(tx, row)
  row.attempt_id = nil
  row.attempt_state = state.ATTEMPT.pending_retry_attempt
  row.retries = row.retries + 1
  row.delay_until = delay_until
  lifecycle.place_runnable(row, now, state.REASON.waiting_for_retry_backoff)
  log.append(tx, row, "retry_scheduled", now, failed.actor, {
    lease = tell_holder and lease or nil,
    holder = tell_holder and holder or nil,
    reason = failed.category,
    data = { delayUntilMs = delay_until },
  })
  record.save(tx, row)
  lifecycle.ring(tx, row)
end
