-- Submitting, and what operators do with an execution.

--- For a submission whose key belongs to this cell, and whose id to another. Arguments: ref, what submit.one takes as JSON.
operation.write("hold_key", function(tx, args)
  return submit.hold_key(tx, args[1], cjson.decode(args[2]))
end)

--- Arguments: ref, what submit.one takes as JSON; without a window the key is let go.
operation.drain("keep_key", function(tx, args)
  submit.keep_key(tx, args[1], cjson.decode(args[2]))
end)

--- What a key of another cell leads to. Arguments: ref. @return as a duplicate's, or nothing
operation.read("find_submitted", function(tx, args)
  local row = record.find(tx, args[1])
  return row and submit.earlier(tx, row) or {}
end)

--- Is anything refused that no earlier execution answers for: one in the store, or another item's?
local function any_rejected(tx, items)
  local ids, keys = {}, {}
  for _, item in ipairs(items) do
    local request = item.request
    local key = request.key and request.ns .. "\n" .. request.lane .. "\n" .. request.key
    local answered = ids[item.ref] or key and keys[key]
    local earlier, elsewhere = submit.find_earlier(tx, item.ref, request)
    if not (answered or earlier or elsewhere) then
      if request.refused then
        return true
      end
      ids[item.ref] = true
      if key and request.window > 0 then
        keys[key] = true
      end
    end
  end
  return false
end

--- One of many that stand for themselves: what cannot be read is its own matter. Nothing was written for it then.
local function try_submit(tx, item)
  local is_done, result = pcall(submit.one, tx, item.ref, item.request, item.payload)
  if is_done then
    return result
  end
  return { "failed", answer.of_error(result) }
end

--- Several submissions in order. Arguments: "0" where each stands for itself, "1" where one that is refused refuses all,
--- "2" where one has been refused already; how many different requests there are, those as JSON; 20 bytes for each item, its ref
--- and in two of them the place of its request; then the payloads. Commands: 1 for the clock, 1 to look for the ids, 1 for each route, 1 for their numbers, 1 to count, 1
--- for all records and payloads, 1 for the index of all and 1 for that of each route. @return for each its home where it was created, else an answer
operation.write("submit_many", function(tx, args)
  later.begin(tx)
  local requests, refs, items = {}, {}, {}
  local count = tonumber(args[2])
  for index = 1, count do
    requests[index] = cjson.decode(args[2 + index])
  end
  local heads, before = args[3 + count], 3 + count
  for index = 1, #args - before do
    local from = (index - 1) * 20
    local ref = heads:sub(from + 1, from + 18)
    local high, low = heads:byte(from + 19, from + 20)
    refs[index] = ref
    items[index] = { ref = ref, request = requests[high * 256 + low], payload = args[before + index] }
  end
  record.expect_none(tx, refs)
  local rejects_all = args[1] == "2" or args[1] == "1" and any_rejected(tx, items)
  local submit_one = args[1] == "0" and try_submit
    or function(_, item)
      return submit.one(tx, item.ref, item.request, item.payload)
    end
  local answers = {}
  for index, item in ipairs(items) do
    item.request.refused = item.request.refused or rejects_all
    local result = submit_one(tx, item)
    -- What nearly all of them are told, in few bytes.
    answers[index] = result[1] == "created" and result[3] == 0 and result[2] or result
    later.flush_if_many(tx)
  end
  return answers
end)

--- Ends an execution as cancelled. `request`: ref, namespace, lane, reason, source, and the fence that a lease holder needs.
--- @return a refusal, or nothing
function operation.cancel(tx, request)
  local row, missing = record.require(tx, request.ref, request.namespace, request.lane)
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if state.is_terminal(row.home) then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  local by_holder = request.source == "lease_holder"
  if by_holder then
    local refusal = fence.check_triple(request.fence, false) or fence.check(row, request.fence, now)
    if refusal then
      return lifecycle.refuse_marking(tx, row, refusal, now)
    end
  end

  lifecycle.promote_if_due(tx, row, now)
  lifecycle.mark_lapsed_if_due(tx, row, now)
  side.change_details(row, { cancellationReason = request.reason, cancelledBy = request.source })
  lifecycle.enter_terminal(tx, row, "cancelled", now, {
    actor = by_holder and "worker" or "operator",
    reason = request.reason,
    tell_holder = not by_holder,
    data = { source = request.source },
  })
  record.save(tx, row)
  lifecycle.ring(tx, row)
end

--- Arguments: ref, namespace, lane, reason, source, the fence.
operation.drain("cancel", function(tx, args)
  return operation.cancel(tx, {
    ref = args[1],
    namespace = args[2],
    lane = args[3],
    reason = args[4],
    source = args[5],
    fence = operation.read_fence(args, 6),
  })
end)

local REPLAYS_DEFAULT = 10

--- Runs a finished execution again. Arguments: ref, namespace, lane; reason, requestedBy and deadline as JSON.
--- @return the home it went to
operation.write("replay", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local request = cjson.decode(args[4])
  local now = record.now(tx, row)
  if not state.is_terminal(row.home) then
    return answer.refuse("execution_not_terminal")
  end
  local limit = tonumber(side.get(tx, row, "replays") or REPLAYS_DEFAULT)
  if row.replays >= limit then
    return answer.refuse("max_replays_exhausted", { limit = limit })
  end

  local finish
  if row.home == state.HOME.cancelled then
    finish = { failureReason = "cancelled: " .. (side.details(row).cancellationReason or "") }
  end
  lifecycle.archive_attempt(tx, row, now, finish, record.output(tx, row))
  record.drop_output(tx, row)
  side.drop_progress(tx, row)
  side.replace_details(row, {
    nextReason = request.reason,
    nextRequestedBy = request.requestedBy,
    nextPrevious = row.attempts > 0 and row.attempt or nil,
  })
  row.attempt_id = nil
  row.attempt_state = state.ATTEMPT.pending_replay_attempt
  row.replays = row.replays + 1
  row.retries = 0
  row.reclaims = 0
  row.completed_at = nil
  if request.deadline then
    row.deadline_at = request.deadline
  elseif row.deadline_at and row.deadline_at <= now then
    row.deadline_at = nil
  end
  lifecycle.place_runnable(row, now)
  log.append(tx, row, "replayed", now, "operator", {
    reason = request.reason,
    data = { replayCount = row.replays },
  })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  if row.deadline_at then
    session.ring_timer(tx, row.deadline_at - now)
  end
  return { row.home }
end)

--- Arguments: ref, namespace, lane, the priority. @return the old one
operation.write("change_priority", function(tx, args)
  local HOME = state.HOME
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if home.at(row, now) ~= HOME.eligible then
    return answer.refuse("execution_not_eligible")
  end

  lifecycle.promote_if_due(tx, row, now)
  local before, priority = row.priority, tonumber(args[4])
  if priority ~= before then
    row.priority = priority
    row.score = order.sort_key(row.created_at, priority)
    row.mutated_at = now
    log.append(tx, row, "priority_changed", now, "operator", {
      transition = false,
      data = { oldPriority = before, newPriority = priority },
    })
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { before }
end)

--- A hold on a runnable execution, beside whatever stands below it. The caller appends the event and saves the row.
function operation.place_hold(tx, row, hold, detail, now)
  lifecycle.promote_if_due(tx, row, now)
  grants.drop(tx, row)
  row.holds = row.holds + hold
  side.change_details(row, { blockingDetail = detail, blockedAtMs = now }, { "blockingDetail" })
  lifecycle.place_runnable(row, now)
end

--- Arguments: ref, namespace, lane, "1" and a reason or two empty ones. @return "held" or "alreadySatisfied"
operation.write("hold", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if state.is_terminal(row.home) then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  if home.is_held(row, state.HOLD.operator) then
    return { "alreadySatisfied" }
  end
  if not state.is_runnable(row.home) then
    return answer.refuse("execution_not_eligible")
  end

  local reason = args[4] == "1" and args[5] or nil
  operation.place_hold(tx, row, state.HOLD.operator, reason, now)
  log.append(tx, row, "held", now, "operator", { reason = reason })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "held" }
end)

--- Arguments: ref, namespace, lane. @return "released" or "alreadySatisfied"
operation.drain("unhold", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local now = record.now(tx, row)
  if state.is_terminal(row.home) then
    return answer.refuse("execution_not_active", fence.not_active_detail(row))
  end
  local runnable = state.is_runnable(row.home)
  if not home.is_held(row, state.HOLD.operator) then
    return runnable and { "alreadySatisfied" } or answer.refuse("execution_not_eligible")
  end

  row.holds = row.holds - state.HOLD.operator
  row.mutated_at = now
  side.change_details(row, {}, { "blockingDetail", "blockedAtMs" })
  if runnable then
    lifecycle.place_runnable(row, now)
  end
  log.append(tx, row, "released_hold", now, "operator", { transition = runnable })
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return { "released" }
end)
