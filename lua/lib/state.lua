-- The numbers of core/src/state.ts and core/src/events.ts; shared vectors hold both to the same.

state.HOME = {
  eligible = 1,
  delayed = 2,
  blocked_dependencies = 3,
  blocked_budget = 4,
  blocked_quota = 5,
  blocked_route = 6,
  blocked_operator = 7,
  blocked_lane = 8,
  active = 10,
  lapsed = 11,
  revoked = 12,
  suspended = 15,
  succeeded = 20,
  failed = 21,
  cancelled = 22,
  expired = 23,
  skipped = 24,
}

state.REASON = {
  none = 0,
  waiting_for_worker = 1,
  waiting_for_retry_backoff = 2,
  waiting_for_resume_delay = 3,
  waiting_for_delay = 4,
  waiting_for_signal = 5,
  waiting_for_approval = 6,
  waiting_for_callback = 7,
  waiting_for_tool_result = 8,
  waiting_for_children = 9,
  waiting_for_budget = 10,
  waiting_for_quota = 11,
  waiting_for_capable_worker = 12,
  paused_by_operator = 13,
  paused_by_policy = 14,
}

state.ATTEMPT = {
  none = 0,
  pending_first_attempt = 1,
  running_attempt = 2,
  attempt_interrupted = 3,
  pending_retry_attempt = 4,
  pending_replay_attempt = 5,
  attempt_terminal = 6,
}

state.ATTEMPT_TYPE = { initial = 0, retry = 1, reclaim = 2, replay = 3 }

--- Bits of `holds`.
state.HOLD = { operator = 1, lane = 2 }

state.EVENT = {
  created = 0,
  granted = 1,
  claimed = 2,
  resumed = 3,
  reclaimed = 4,
  lease_expired = 5,
  lease_revoked = 6,
  suspended = 7,
  signal = 8,
  delayed = 9,
  promoted = 10,
  blocked = 11,
  unblocked = 12,
  held = 13,
  released_hold = 14,
  priority_changed = 15,
  progress = 16,
  retry_scheduled = 17,
  waiting_children = 18,
  dependency_resolved = 19,
  completed = 20,
  failed = 21,
  cancelled = 22,
  expired = 23,
  skipped = 24,
  replayed = 25,
  budget_soft_breach = 26,
  budget_hard_breach = 27,
  renewed = 28,
  tags_changed = 30,
}

state.ACTOR = { client = 0, worker = 1, operator = 2, engine = 3 }

state.OUTCOME_HOME = { success = 20, failed = 21, cancelled = 22, expired = 23, skipped = 24 }

function state.is_terminal(home)
  return home >= 20
end

function state.is_runnable(home)
  return home < 10
end

--- `runnable`, `active`, `suspended` or `terminal`.
function state.phase(home)
  if home >= 20 then
    return "terminal"
  end
  if home >= 15 then
    return "suspended"
  end
  if home >= 10 then
    return "active"
  end
  return "runnable"
end

function state.outcome(home)
  for name, terminal in pairs(state.OUTCOME_HOME) do
    if terminal == home then
      return name
    end
  end
  return "none"
end

--- The state as one integer, for event logs.
function state.pack(row)
  return row.home * 256 + row.reason * 16 + row.attempt_state
end
