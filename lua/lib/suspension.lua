-- Mirrors core/src/rules/suspension.ts: what suspending, signals and timeouts decide by.

local BLOCKING = {
  waiting_for_operator_review = "paused_by_operator",
  paused_by_budget = "waiting_for_budget",
  step_boundary = "waiting_for_signal",
  manual_pause = "paused_by_operator",
}

--- The number of a reason code's blocking reason; most have the same name.
function suspension.blocking_reason(reason)
  return state.REASON[BLOCKING[reason] or reason]
end

local REPLAY_MS_MAX = 604800000
local REPLAY_SLACK_MS = 60000

--- How long the outcome of a suspend is remembered under its idempotency key.
function suspension.replay_ms(timeout_at, now)
  if not timeout_at then
    return REPLAY_MS_MAX
  end
  return math.min(math.max(timeout_at - now, 0) + REPLAY_SLACK_MS, REPLAY_MS_MAX)
end

--- A sender may postpone what it wakes only where the suspension says nothing about it.
function suspension.resume_delay(policy_delay, sender_delay)
  return policy_delay or sender_delay or 0
end

local OUTCOMES = { fail = "failed", cancel = "cancelled", expire = "expired" }

--- What a timeout does: kind is "end" with outcome and failure_reason, "resume", or "escalate"; the first two have close_reason.
function suspension.timeout_effect(behavior)
  if behavior == "escalate" then
    return { kind = "escalate" }
  end
  if behavior == "autoResume" or behavior == "autoResumeWithTimeoutSignal" then
    return { kind = "resume", close_reason = "timed_out_auto_resume" }
  end
  return {
    kind = "end",
    outcome = OUTCOMES[behavior],
    close_reason = "timed_out_" .. behavior,
    failure_reason = "suspension_timeout:" .. behavior,
  }
end

--- Numbers of core's list of waitpoint states.
suspension.WAITPOINT = { pending = 0, active = 1, closed = 2, expired = 3 }

--- A pending waitpoint is over when its time is up, swept or not.
function suspension.waitpoint_state(stored, expires_at, now)
  local is_over = stored == suspension.WAITPOINT.pending and (expires_at or now) <= now
  return is_over and suspension.WAITPOINT.expired or stored
end

--- 0 is no limit; a sender may only lower what the policy allows.
function suspension.signal_limit(policy_limit, sender_limit)
  if not sender_limit or sender_limit == 0 then
    return policy_limit
  end
  return policy_limit == 0 and sender_limit or math.min(policy_limit, sender_limit)
end

--- What becomes of a signal that nobody has seen before: "buffer", "evaluate" or a refusal. `target`: terminal, waitpoint (its
--- state by the clock), awaited (the execution is suspended on the suspension that it belongs to), signals, limit.
function suspension.judge_signal(target)
  local WAITPOINT = suspension.WAITPOINT
  if target.terminal then
    return nil, answer.refuse("target_not_signalable")
  end
  if target.waitpoint >= WAITPOINT.closed then
    return nil, answer.refuse("waitpoint_closed")
  end
  if target.limit > 0 and target.signals >= target.limit then
    return nil, answer.refuse("signal_limit_exceeded", { limit = target.limit })
  end
  if target.waitpoint == WAITPOINT.pending then
    return "buffer"
  end
  if not target.awaited then
    return nil, answer.refuse("target_not_signalable")
  end
  return "evaluate"
end

--- What a handle may see of the last suspension: whether the signals that counted, and whether the one that stands for a
--- timeout. `last`: attempt, closed_at, trigger, behavior.
function suspension.observable(last, attempt, is_suspended_handle)
  if last.attempt ~= attempt then
    return false, false
  end
  if not last.closed_at then
    return is_suspended_handle, false
  end
  local by_timeout = last.trigger == "timeout" and last.behavior == "autoResumeWithTimeoutSignal"
  return last.trigger == "signal" or by_timeout, by_timeout
end
