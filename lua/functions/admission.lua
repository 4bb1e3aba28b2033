-- Blocks that admission and operators put on waiting work, and why a block stands.

-- Reasons that a caller may give, by the name of the home they lead to; those with a hold are kept beside what stands below.
local HOME_OF = {
  waiting_for_budget = "blocked_budget",
  waiting_for_quota = "blocked_quota",
  waiting_for_capable_worker = "blocked_route",
  paused_by_operator = "blocked_operator",
  paused_by_policy = "blocked_lane",
}
local HOLD_OF = { paused_by_operator = "operator", paused_by_policy = "lane" }

local function reason_of(at)
  for reason, name in pairs(HOME_OF) do
    if state.HOME[name] == at then
      return reason
    end
  end
  return nil
end

--- Takes an execution out of the order. Arguments: ref, namespace, lane, reason, "1" and a detail or two empty ones.
--- @return "blocked" or "alreadySatisfied"
operation.write("block", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if state.is_terminal(row.home) then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  if not state.is_runnable(row.home) then
    return answer.refuse("execution_not_eligible")
  end
  local reason = args[4]
  if not HOME_OF[reason] then
    return answer.refuse("invalid_blocking_reason", { reason = reason })
  end
  local target, hold = state.HOME[HOME_OF[reason]], HOLD_OF[reason] and state.HOLD[HOLD_OF[reason]]
  if row.home == target or hold and home.is_held(row, hold) then
    return { "alreadySatisfied" }
  end
  if not hold and home.at(row, now) ~= state.HOME.eligible then
    return answer.refuse("execution_not_eligible")
  end

  local detail = args[5] == "1" and args[6] or nil
  if hold then
    operation.place_hold(tx, row, hold, detail, now)
  else
    lifecycle.promote_if_due(tx, row, now)
    unblock.set_aside(tx, row, target, state.REASON[reason], detail, now)
  end
  log.append(tx, row, "blocked", now, "engine", { reason = reason })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "blocked" }
end)

--- Lifts one block. Arguments: ref, namespace, lane, the reason that is expected or nothing.
--- @return the home it went to
operation.drain("unblock", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local reason, expected = reason_of(row.home), args[4]
  if not reason or expected ~= "" and expected ~= reason then
    return answer.refuse("execution_not_eligible")
  end
  -- An operator's hold is lifted only by someone who says so.
  if reason == "paused_by_operator" and expected == "" then
    return answer.refuse("execution_not_eligible")
  end

  local hold = HOLD_OF[reason] and state.HOLD[HOLD_OF[reason]]
  if hold and home.is_held(row, hold) then
    row.holds = row.holds - hold
  end
  unblock.unblock(tx, row, "operator")
  return { row.home }
end)

local EXPLAINED_WORKERS_MAX = 100

--- Who is alive, and what each lacks: the closest first, then by id.
local function explained_workers(required, live)
  local workers = {}
  for index, worker in ipairs(live) do
    workers[index] = { worker.instance_id, worker.lane_list, capabilities.missing(required, worker.capabilities) }
  end
  table.sort(workers, function(a, b)
    if #a[3] ~= #b[3] then
      return #a[3] < #b[3]
    end
    return text.is_before(a[1], b[1])
  end)
  for index = #workers, EXPLAINED_WORKERS_MAX + 1, -1 do
    workers[index] = nil
  end
  return workers
end

--- Why nobody takes it. Arguments: ref, namespace, lane.
--- @return required tokens, verdict, workers ({ instance id, lanes, missing tokens }), details as JSON
operation.read("explain", function(tx, args)
  local HOME = state.HOME
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local route = routes.find(tx, row.route)
  local live = registry.live(tx, route.namespace)
  local at = home.at(row, tx.now)
  local open = state.is_runnable(at) or at == HOME.lapsed or at == HOME.revoked
  return {
    route.required,
    open and capabilities.coverage(route.required, route.lane, live) or "not_applicable",
    explained_workers(route.required, live),
    answer.or_false(row.details),
  }
end)
