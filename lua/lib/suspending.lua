-- Suspending the running attempt, once the fence was checked, and what becomes of it when its time is up.

--- The call's own, else the policy's, else none and `fail`. @return when, and what happens then
local function timeout_of(tx, row, request, now)
  if request.timeout_at and request.behavior then
    return request.timeout_at, request.behavior
  end
  local policy = text.decoded(side.get(tx, row, "suspension"))
  local after = policy.defaultTimeoutMs
  return request.timeout_at or after and now + after or nil, request.behavior or policy.timeoutBehavior or "fail"
end

local function invalid(reason, field)
  return answer.refuse("invalid_input", { reason = reason, field = field })
end

--- What a pending waitpoint comes to: { pending, condition, evaluation }, or the refusal.
local function bind_pending(tx, row, id, condition, stored, now)
  local WAITPOINT = suspension.WAITPOINT
  local pending = waitpoints.find(tx, row, id)
  if not pending then
    return nil, answer.refuse("waitpoint_not_found", { entity = "waitpoint", waitpointId = text.of_uuid(id) })
  end
  local at = suspension.waitpoint_state(pending.state, pending.expires_at, now)
  if at == WAITPOINT.expired then
    return nil, answer.refuse("pending_waitpoint_expired")
  end
  if at ~= WAITPOINT.pending then
    return nil, answer.refuse("waitpoint_not_pending")
  end
  if pending.attempt ~= row.attempt then
    return nil, answer.refuse("invalid_waitpoint_for_execution")
  end
  if not keystore.verifying(stored, pending.kid, now) then
    return nil, answer.refuse("waitpoint_not_token_bound")
  end
  local fault = conditions.pending_key_fault(condition, pending.key)
  if fault then
    return nil, invalid(fault, "waitpoints")
  end
  return { pending = pending, evaluation = signals.evaluate_buffered(tx, row, pending, condition) }
end

--- What is bound: a pending waitpoint with what its signals come to, or the secret that signs the tokens of fresh ones.
local function bind(tx, row, request, condition, stored, now)
  local primary = request.bindings[1]
  if primary.kind == "usePending" then
    return bind_pending(tx, row, primary.id, condition, stored, now)
  end
  for _, binding in ipairs(request.bindings) do
    if waitpoints.find(tx, row, binding.id) then
      return nil, answer.refuse("waitpoint_already_exists")
    end
  end
  local secret, refusal = keystore.signing(stored)
  return secret and { secret = secret }, refusal
end

--- A waitpoint of the attempt that runs with its token, to be written: as waitpoints.insert takes it.
function suspending.new_waitpoint(stored, secret, row, waitpoint, now)
  waitpoint.created_at = now
  waitpoint.kid = stored.current
  local digest = token.digest(secret, stored.current, text.of_ref(row.ref), waitpoint)
  waitpoint.print = text.bytes(digest:sub(1, 16))
  waitpoint.token = token.of_digest(stored.current, digest)
  return waitpoint
end

local function write_waitpoints(tx, row, request, bound, stored, timeout_at, now)
  if bound.secret then
    local fresh = {}
    for place, binding in ipairs(request.bindings) do
      fresh[place] = suspending.new_waitpoint(stored, bound.secret, row, {
        id = binding.id,
        key = binding.key,
        expires_at = timeout_at,
        suspension = request.id,
      }, now)
    end
    waitpoints.insert(tx, row, fresh, now)
    return fresh
  end
  local pending, evaluation = bound.pending, bound.evaluation
  signals.save_evaluation(tx, row, evaluation)
  pending.matched = evaluation.matched
  waitpoints.activate(tx, row, pending, request.id, timeout_at, now)
  if evaluation.closer then
    waitpoints.close(tx, row, pending, "resumed", now)
  end
  return { pending }
end

local function uuids_of(joined)
  local uuids = {}
  for place, id in ipairs(waitpoints.ids_of(joined)) do
    uuids[place] = text.of_uuid(id)
  end
  return uuids
end

--- Lease and time of the attempt stop; epoch and attempt stay.
local function enter_suspended(tx, row, last, now)
  lifecycle.pause_timeout(row, now)
  lifecycle.release_lease(tx, row)
  row.home = state.HOME.suspended
  row.score = now
  row.reason = suspension.blocking_reason(last.reason)
  row.attempt_state = state.ATTEMPT.attempt_interrupted
  row.timeout_at = last.timeout_at
  row.transitioned_at = now
  row.mutated_at = now
  side.change_details(row, { blockingDetail = last.reason })
  log.append(tx, row, "suspended", now, "worker", {
    reason = last.reason,
    data = {
      suspensionId = text.of_uuid(last.id),
      waitpoints = uuids_of(last.ids),
      timeoutAtMs = last.timeout_at,
      timeoutBehavior = last.timeout_at and last.behavior or nil,
    },
  })
  if last.timeout_at then
    session.ring_timer(tx, last.timeout_at - now)
  end
end

--- A suspend of the attempt that runs. `request`: id, bindings (each kind, id, key), condition and policy (JSON), reason,
--- requested_by, pointer, idempotency_key, timeout_at and behavior where given. Saves the row.
--- @return as suspending.answer, or a refusal
function suspending.suspend(tx, row, request, now)
  local stored = keystore.read(tx)
  local timeout_at, behavior = timeout_of(tx, row, request, now)
  local condition = conditions.of(cjson.decode(request.condition))
  if condition.root.kind == "timeoutOnly" and not timeout_at then
    return invalid("timeout_only_without_deadline", "timeoutAtMs")
  end
  local bound, refusal = bind(tx, row, request, condition, stored, now)
  if refusal then
    return refusal
  end

  local closer = bound.evaluation and bound.evaluation.closer
  local ids = {}
  for place, binding in ipairs(request.bindings) do
    ids[place] = binding.id
  end
  local last = {
    id = request.id,
    outcome = closer and "alreadySatisfied" or "suspended",
    lease = row.lease,
    epoch = row.epoch,
    attempt_id = row.attempt_id,
    attempt = row.attempt,
    ttl = row.lease_expires_at - row.renewed_at,
    holder = row.holder,
    ids = table.concat(ids),
    reason = request.reason,
    requested_by = request.requested_by,
    created_at = now,
    timeout_at = timeout_at,
    behavior = behavior,
    policy = request.policy,
    pointer = request.pointer,
    closed_at = closer and now,
    close_reason = closer and "resumed",
    trigger = closer and "signal",
    closer = closer,
    condition = not closer and request.condition or nil,
  }
  local written = write_waitpoints(tx, row, request, bound, stored, timeout_at, now)
  suspensions.save(tx, row, last)
  suspensions.remember(tx, row, request.idempotency_key, last, now + suspension.replay_ms(timeout_at, now))
  if not closer then
    local progress = bound.evaluation and bound.evaluation.progress or conditions.initial(condition)
    suspensions.save_progress(tx, row, progress)
    enter_suspended(tx, row, last, now)
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)

  return suspending.answer(tx, row, last, written, stored, now)
end

--- What a receipt of an earlier or of this call stands for: outcome, suspension, its waitpoints (each id, key, token), then for
--- the handle lease, epoch, attempt id, attempt, ttl, lane, holder's name. `token_expired` where the tokens would open nothing any
--- more.
function suspending.answer(tx, row, receipt, bound, stored, now)
  local told = {}
  for place, waitpoint in ipairs(bound) do
    local shown = waitpoint.token or token.shown(stored, row.ref, waitpoint, now)
    if not shown then
      return answer.refuse("token_expired")
    end
    told[place] = { waitpoint.id, waitpoint.key, shown }
  end
  return {
    receipt.outcome,
    receipt.id,
    told,
    receipt.lease,
    receipt.epoch,
    receipt.attempt_id,
    receipt.attempt,
    receipt.ttl,
    routes.find(tx, row.route).lane,
    holders.name(tx, receipt.holder),
  }
end

--- The same for a call that was made before.
function suspending.answer_again(tx, row, receipt, now)
  local bound = waitpoints.find_all(tx, row, waitpoints.ids_of(receipt.ids))
  return suspending.answer(tx, row, receipt, bound, keystore.read(tx), now)
end

--- Stays suspended, for signals and operators, without a timeout from now on.
local function escalate(tx, row, open, now)
  local timeout_at = open.timeout_at
  open.timeout_at = nil
  open.reason = "waiting_for_operator_review"
  suspensions.save(tx, row, open)
  waitpoints.unlimit_active(tx, row)
  row.timeout_at = nil
  row.reason = state.REASON.paused_by_operator
  row.transitioned_at = now
  row.mutated_at = now
  side.change_details(row, { blockingDetail = "suspension timed out at " .. text.of_number(timeout_at) })
  log.append(tx, row, "blocked", now, "engine", {
    reason = "paused_by_operator",
    data = { timeoutAtMs = timeout_at },
  })
end

local function fail(tx, row, effect, now)
  local is_cancelled = effect.outcome == "cancelled"
  side.change_details(row, {
    failureReason = effect.failure_reason,
    failureCategory = "timeout",
    cancellationReason = is_cancelled and effect.failure_reason or nil,
    cancelledBy = is_cancelled and "system_timeout" or nil,
  })
  lifecycle.enter_terminal(tx, row, effect.outcome, now, {
    actor = "engine",
    reason = effect.failure_reason,
    close_reason = effect.close_reason,
    closes = "suspension_timeout",
  })
end

--- Does what the open suspension asks for once its time is up. Re-checks everything inside the step: a stale look has no effect.
--- Saves the row where it acts. @return "applied" and the behaviour, or why there is nothing to do
function suspending.time_out(tx, row)
  local now = record.now(tx, row)
  if row.home ~= state.HOME.suspended then
    return "notSuspendedCleaned"
  end
  local open = suspensions.find_open(tx, row)
  if not open then
    return "noActiveSuspensionCleaned"
  end
  if not open.timeout_at or open.timeout_at > now then
    return "notYetDue"
  end

  local effect = suspension.timeout_effect(open.behavior)
  if effect.kind == "end" then
    fail(tx, row, effect, now)
  elseif effect.kind == "resume" then
    suspensions.resume(tx, row, open, { close_reason = effect.close_reason, trigger = "timeout" }, 0, now)
    log.append(tx, row, "unblocked", now, "engine", { reason = "timeout" })
  else
    escalate(tx, row, open, now)
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)

  return "applied", open.behavior
end
