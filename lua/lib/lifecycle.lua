-- The shared steps of every transition: taking and releasing a lease, finding a home, ending. Each changes the row in
-- memory and appends its event; the operation saves the row once, at its end.

function lifecycle.is_interrupted(row)
  return row.attempt_state == state.ATTEMPT.attempt_interrupted
end

--- Why a delay underneath a hold is there: retries wait for their back-off, everything else was asked for.
local function reason_of_delay(row)
  local REASON = state.REASON
  local stored = row.reason
  if
    stored == REASON.waiting_for_delay
    or stored == REASON.waiting_for_resume_delay
    or stored == REASON.waiting_for_retry_backoff
  then
    return stored
  end
  if row.attempt_state == state.ATTEMPT.pending_retry_attempt then
    return REASON.waiting_for_retry_backoff
  end
  return REASON.waiting_for_delay
end

--- P7: the one way into every runnable home. The attempt state is kept.
function lifecycle.place_runnable(row, now, delay_reason)
  local at, score, reason = home.enter_runnable(row, delay_reason or reason_of_delay(row), now)
  -- A second hold under a first one changes nothing that shows.
  if row.home ~= at or row.reason ~= reason then
    row.transitioned_at = now
  end
  row.home, row.score, row.reason = at, score, reason
  if at == state.HOME.eligible then
    row.delay_until = nil
  end
  row.mutated_at = now
end

--- A delay that is over, written down by whoever first changes the execution.
function lifecycle.promote_if_due(tx, row, now)
  if row.home ~= state.HOME.delayed or row.score > now then
    return false
  end
  row.delay_until = nil
  lifecycle.place_runnable(row, now)
  log.append(tx, row, "promoted", now, "engine")
  return true
end

--- P3: a lease that has lapsed, written down. The lease stays visible; the next offer waits for its back-off.
function lifecycle.mark_lapsed(tx, row, now, reason)
  local lost_at = math.min(row.lease_expires_at, now)
  row.home = state.HOME.lapsed
  row.score = lost_at + order.reclaim_backoff_ms(row.reclaims)
  row.reason = state.REASON.waiting_for_worker
  row.attempt_state = state.ATTEMPT.attempt_interrupted
  row.lost_at = now
  row.transitioned_at = now
  row.mutated_at = now
  log.append(tx, row, "lease_expired", now, "engine", { lease = row.lease, holder = row.holder, reason = reason })
end

function lifecycle.mark_lapsed_if_due(tx, row, now)
  if row.home ~= state.HOME.active or row.lease_expires_at > now then
    return false
  end
  lifecycle.mark_lapsed(tx, row, now)
  return true
end

--- P4: a lease begins: lease, ttl, renew_in, holder, request. The caller has decided which attempt runs under it.
function lifecycle.acquire_lease(row, lease, now)
  row.home = state.HOME.active
  row.score = now + lease.ttl
  row.reason = 0
  row.attempt_state = state.ATTEMPT.running_attempt
  row.epoch = row.epoch + 1
  row.lease = lease.lease
  row.holder = lease.holder
  row.request = lease.request
  row.leased_at = now
  row.renewed_at = now
  row.lease_expires_at = now + lease.ttl
  row.renew_by = now + lease.renew_in
  row.lost_at = nil
  row.started_at = row.started_at or now
  row.delay_until = nil
  row.transitioned_at = now
  row.mutated_at = now
end

--- A new attempt at the next index; earlier ones are history by now.
function lifecycle.begin_attempt(tx, row, attempt_id, kind, now)
  row.attempt = row.attempts
  row.attempts = row.attempts + 1
  row.attempt_id = attempt_id
  row.attempt_type = state.ATTEMPT_TYPE[kind]
  row.attempt_at = now
  row.timeout_left = nil
  row.timeout_at = row.timeout_ms and now + row.timeout_ms
  if kind == "initial" then
    return
  end
  local details = side.details(row)
  -- What an earlier attempt failed with stays with that attempt.
  side.change_details(row, {
    attemptReason = details.nextReason,
    attemptRequestedBy = details.nextRequestedBy,
    attemptPrevious = details.nextPrevious,
  }, {
    "nextReason",
    "nextRequestedBy",
    "nextPrevious",
    "attemptReason",
    "attemptRequestedBy",
    "attemptPrevious",
    "failureReason",
    "failureCategory",
  })
  side.drop_progress(tx, row)
end

--- The interrupted attempt goes on with what is left of its time.
function lifecycle.resume_attempt(row, now)
  row.timeout_at = row.timeout_left and now + row.timeout_left
  row.timeout_left = nil
end

--- Which kind of attempt a fresh claim begins.
function lifecycle.next_attempt_type(row)
  if row.attempt_state == state.ATTEMPT.pending_retry_attempt then
    return "retry"
  end
  if row.attempt_state == state.ATTEMPT.pending_replay_attempt then
    return "replay"
  end
  return "initial"
end

--- How the attempt that the row points at stands.
local function attempt_lifecycle(row)
  local HOME = state.HOME
  if row.home == HOME.succeeded then
    return "ended_success"
  end
  if row.home == HOME.cancelled or row.home == HOME.skipped then
    return "ended_cancelled"
  end
  if row.home == HOME.failed or row.home == HOME.expired then
    return "ended_failure"
  end
  return state.phase(row.home) == "active" and "started" or "suspended"
end

--- How the stream of the attempt that the row points at is closed by what is about to happen; an end that came earlier stays.
--- `closes`: a reason, or nothing where this is no end or the outcome tells it.
local function close_attempt(row, closes, now)
  local earlier = closing.end_of_attempt(row, side.details(row), now)
  return closes and closing.end_attempt(earlier, closes, now) or earlier
end

--- Moves the attempt that the row points at into history; nothing where there is none. `finish`: state, failureReason and
--- failureCategory, where they differ from what the row says, and closes, what closes its stream where the execution goes on.
--- `result`: its bytes, where it had one.
function lifecycle.archive_attempt(tx, row, now, finish, result)
  if not row.attempt_id then
    return
  end
  suspensions.end_attempt(tx, row, "attempt_ended", now)
  finish = finish or {}
  local details = side.details(row)
  local attempt_state = finish.state or attempt_lifecycle(row)
  -- The record's category is that of its end; a cancelled attempt has none, whatever cancelled it.
  local category = attempt_state ~= "ended_cancelled" and details.failureCategory or nil
  local archived = {
    attemptId = text.of_uuid(row.attempt_id),
    type = row.attempt_type or 0,
    state = attempt_state,
    leaseId = text.of_uuid(row.lease or row.attempt_id),
    epoch = row.epoch,
    holder = row.holder or 0,
    startedAtMs = row.attempt_at,
    endedAtMs = row.completed_at or now,
    failureReason = finish.failureReason or details.failureReason,
    failureCategory = finish.failureCategory or category,
    reason = details.attemptReason,
    requestedBy = details.attemptRequestedBy,
    previous = details.attemptPrevious,
  }
  local closed = close_attempt(row, finish.closes, now)
  if closed then
    closing.archive(archived, closed)
  end
  side.set(tx, row, "a" .. row.attempt, text.encode(archived))
  if result then
    side.set(tx, row, "r" .. row.attempt, result)
  end
end

--- P5: no lease any more. The epoch stays; so do the identities of the attempt's last lease where it may go on.
function lifecycle.release_lease(tx, row)
  row.request = nil
  row.leased_at = nil
  row.renewed_at = nil
  row.lease_expires_at = nil
  row.renew_by = nil
  row.lost_at = nil
  row.timeout_at = nil
  if row.details then
    side.change_details(row, {}, { "revokeReason" })
  end
end

--- What is left of the attempt's time when it is parked.
function lifecycle.pause_timeout(row, now)
  row.timeout_left = row.timeout_at and math.max(1, row.timeout_at - now)
  row.timeout_at = nil
end

--- P8: the one way to every end. Its event is the completion record. `ending`: actor, reason, tell_holder for a lease taken
--- away by someone else's hand, data, close_reason of an open suspension where it is not the outcome, closes where the outcome
--- does not tell what closes the attempt's stream.
function lifecycle.enter_terminal(tx, row, outcome, now, ending)
  suspensions.end_attempt(tx, row, ending.close_reason or outcome, now)
  local told = ending.tell_holder and row.lease_expires_at
  local lease, holder = row.lease, row.holder
  local closed = close_attempt(row, ending.closes, now)
  row.home = state.OUTCOME_HOME[outcome]
  row.score = row.keep_ms and record.OWN_RETENTION_OFFSET + now + row.keep_ms or now
  row.reason = 0
  row.attempt_state = row.attempts > 0 and state.ATTEMPT.attempt_terminal or state.ATTEMPT.none
  row.completed_at = now
  row.transitioned_at = now
  row.mutated_at = now
  row.delay_until = nil
  row.holds = 0
  row.timeout_left = nil
  lifecycle.release_lease(tx, row)
  if row.details then
    side.change_details(row, {}, { "blockingDetail", "blockedAtMs", "nextReason", "nextRequestedBy", "nextPrevious" })
  end
  if closed then
    side.change_details(row, closed)
  end
  grants.drop(tx, row)
  log.append(tx, row, outcome == "success" and "completed" or outcome, now, ending.actor, {
    lease = told and lease or nil,
    holder = told and holder or nil,
    reason = ending.reason,
    data = ending.data,
  })
end

--- Ends a lost execution that was taken over too often.
function lifecycle.fail_at_reclaim_cap(tx, row, now)
  side.change_details(row, { failureReason = "max_reclaims_exceeded", failureCategory = "infra_crash" })
  lifecycle.enter_terminal(tx, row, "failed", now, {
    actor = "engine",
    reason = "max_reclaims_exceeded",
    closes = "max_reclaims_exceeded",
  })
end

function lifecycle.is_at_reclaim_cap(row, call_cap)
  return reclaim.at_cap(row.reclaims, row.max_reclaims, call_cap)
end

--- Writes down that the lease of a refusal has lapsed; the refusal stands.
function lifecycle.refuse_marking(tx, row, refusal, now)
  if refusal.mark_lapsed then
    lifecycle.mark_lapsed(tx, row, now)
    record.save(tx, row)
    lifecycle.ring(tx, row)
  end
  return refusal
end

--- Wakes whoever waits for work of this route, or for the end of an attempt, once the change is there to be seen. News of it
--- went out with its event.
function lifecycle.ring(tx, row)
  if row.home ~= state.HOME.active and row.attempts > 0 then
    session.ring_stream(tx, row.ref)
  end
  if state.is_terminal(row.home) or row.home == state.HOME.suspended then
    session.news(tx)
  elseif row.home == state.HOME.active then
    -- A held lease is no work for anyone, until it lapses.
    session.ring(tx, row.route, row.lease_expires_at - row.mutated_at)
  else
    session.ring(tx, row.route)
  end
end
