-- Mirrors core/src/rules/reconcile.ts: a lost reply is not a lost write. From the refusal execution_not_active a repeat
-- recognises its own earlier success. `own`: epoch and attempt_id of the caller's fence.

local function not_active(refusal, phase, own)
  local detail = refusal.detail
  return refusal.refused == "execution_not_active" and detail.lifecyclePhase == phase and detail.leaseEpoch == own.epoch
end

local function is_own_attempt(refusal, own)
  return refusal.detail.attemptId == text.of_uuid(own.attempt_id)
end

--- Did this very lease and attempt end the execution with this outcome?
function repeats.ended_by_us(refusal, own, outcome)
  return not_active(refusal, "terminal", own)
    and refusal.detail.terminalOutcome == outcome
    and is_own_attempt(refusal, own)
end

--- Did our failure schedule a retry that nobody has claimed yet? The attempt id is cleared by then.
function repeats.retry_scheduled_by_us(refusal, own, attempt_state)
  return not_active(refusal, "runnable", own)
    and refusal.detail.attemptId == ""
    and attempt_state == state.ATTEMPT.pending_retry_attempt
end

--- Did our delay park the attempt, and has nobody resumed it yet?
function repeats.parked_by_us(refusal, own)
  return not_active(refusal, "runnable", own) and is_own_attempt(refusal, own)
end
