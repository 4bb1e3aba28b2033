-- Mirrors core/src/rules/home.ts: where an execution belongs.

--- Whether this hold (see state.HOLD) stands.
function home.is_held(row, hold)
  return math.floor(row.holds / hold) % 2 == 1
end

--- The one way into every runnable home: home, score and reason. First match wins: operator hold, lane hold, open
--- dependencies (nothing here opens any yet), future delay, ready.
function home.enter_runnable(row, delay_reason, now)
  local HOME, REASON, HOLD = state.HOME, state.REASON, state.HOLD
  if row.holds % 2 == HOLD.operator then
    return HOME.blocked_operator, now, REASON.paused_by_operator
  end
  if row.holds >= HOLD.lane then
    return HOME.blocked_lane, now, REASON.paused_by_policy
  end
  if row.dependencies_open then
    return HOME.blocked_dependencies, row.created_at, REASON.waiting_for_children
  end
  if row.delay_until and row.delay_until > now then
    return HOME.delayed, row.delay_until, delay_reason
  end
  return HOME.eligible, order.sort_key(row.created_at, row.priority), REASON.waiting_for_worker
end

--- The home as every answer must show it: what only time has changed counts as changed.
function home.at(row, now)
  if row.score > math.max(now, row.mutated_at) then
    return row.home
  end
  if row.home == state.HOME.delayed then
    return state.HOME.eligible
  end
  if row.home == state.HOME.active then
    return state.HOME.lapsed
  end
  return row.home
end
