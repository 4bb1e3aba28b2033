-- Taking work off lanes.

local function ids_of(tx, bytes, index)
  local from = index * 32
  return bytes:sub(from + 1, from + 16), bytes:sub(from + 17, from + 32)
end

--- One of each list, then the next of each.
local function in_turn(lists)
  if #lists == 1 then
    return lists[1]
  end
  local merged, longest = {}, 0
  for _, list in ipairs(lists) do
    longest = math.max(longest, #list)
  end
  for index = 1, longest do
    for _, list in ipairs(lists) do
      merged[#merged + 1] = list[index]
    end
  end
  return merged
end

--- The leases of a request that still run, for a caller whose reply got lost.
local function repeated(tx, claim)
  later.flush(tx)
  local again = {}
  for _, route_ids in ipairs(claim.all_lanes) do
    for _, route in ipairs(route_ids) do
      local key = record.index_of(tx, route, state.HOME.active)
      local running = redis.call("ZRANGE", key, "(" .. text.of_number(tx.now), "+inf", "BYSCORE")
      for _, ref in ipairs(running) do
        local row = record.find(tx, ref)
        if row and row.home == state.HOME.active and row.holder == claim.holder and row.request == claim.request then
          again[#again + 1] = take.answer(tx, row)
        end
      end
    end
  end
  return again
end

--- Where it was decided before how many of each lane; each row tells which one it is of.
local function find_by_quota(tx, claim, wanted, accept)
  local lists = {}
  for index, route_ids in ipairs(claim.lanes) do
    local most = math.min(wanted, claim.quotas[index])
    lists[index] = most > 0 and candidates.find(tx, route_ids, most, accept) or {}
    for _, row in ipairs(lists[index]) do
      row.lane_index = index
    end
  end
  return lists
end

--- The claim itself: also the second half of complete_and_claim. `claim`: lanes (a list of lists of routes), max, ttl,
--- renew_in, holder, request, ids (32 random bytes for each that may be claimed); where an earlier call may have been
--- applied also all_lanes, the routes of these lanes whatever the worker can do; where several cells share a claim quotas, how
--- many of each lane. What `passed_over` says about a ref is left out.
--- @return the claims, and in how many milliseconds something falls due where fewer than max were found
function operation.claim(tx, claim, passed_over)
  if claim.all_lanes and claim.request then
    local again = repeated(tx, claim)
    if #again > 0 then
      return again, false
    end
  end
  local claimed = {}
  local function accept(row)
    return not (passed_over and passed_over[row.ref])
  end
  -- A candidate that must still wait for its back-off is written down and gone from the next look.
  for _ = 1, 3 do
    local wanted = claim.max - #claimed
    if wanted <= 0 then
      break
    end
    local lists = claim.quotas and find_by_quota(tx, claim, wanted, accept)
      or candidates.find_by_lane(tx, claim.lanes, wanted, accept)
    local rows = in_turn(lists)
    if #rows == 0 then
      break
    end
    for index = 1, math.min(wanted, #rows) do
      local lease, attempt_id = ids_of(tx, claim.ids, #claimed)
      local row = rows[index]
      local kind = take.execution(tx, row, {
        holder = claim.holder,
        ttl = claim.ttl,
        renew_in = claim.renew_in,
        request = claim.request,
        lease = lease,
        attempt_id = attempt_id,
      })
      if kind then
        claimed[#claimed + 1] = take.answer(tx, row, kind)
        -- Whoever is parked on its lane must look when this lease may lapse.
        session.ring(tx, row.route, claim.ttl)
        if claim.quotas then
          claim.quotas[row.lane_index] = claim.quotas[row.lane_index] - 1
        end
      end
    end
  end
  if #claimed == claim.max then
    return claimed, false
  end
  local all_routes = {}
  for _, route_ids in ipairs(claim.lanes) do
    for _, route in ipairs(route_ids) do
      all_routes[#all_routes + 1] = route
    end
  end
  local due_at = candidates.next_due_at(tx, all_routes)
  return claimed, due_at and math.max(0, due_at - tx.now) or false
end

--- Arguments of a claim: routes of its lanes (JSON), max, ttl, renew_in, holder, request or nothing, ids, all routes of these
--- lanes or nothing, quotas of the lanes or nothing, the marks of these numbers.
function operation.read_claim(args, from)
  return {
    lanes = cjson.decode(args[from]),
    max = tonumber(args[from + 1]),
    ttl = tonumber(args[from + 2]),
    renew_in = tonumber(args[from + 3]),
    holder = tonumber(args[from + 4]),
    request = args[from + 5] ~= "" and args[from + 5] or nil,
    ids = args[from + 6],
    all_lanes = args[from + 7] ~= "" and cjson.decode(args[from + 7]) or nil,
    quotas = args[from + 8] ~= "" and cjson.decode(args[from + 8]) or nil,
    marks = args[from + 9],
  }
end

--- Claims up to max executions. Arguments: those of a claim. Allowed at the memory limit: what a claim adds is little, and only
--- work that is claimed can end and be trimmed.
--- Commands: 1 for the clock, 1 for the routes, 2 for each route and 1 to read what it leads to (of several lanes once more, where
--- one of each does not suffice); for each execution 1 for its event and 1 for a long payload; for all of them together 1 for the
--- records and 1 for each index they leave or enter.
--- @return how many routes there are, next due in, the claims
operation.drain("claim", function(tx, args)
  later.begin(tx)
  local claim = operation.read_claim(args, 1)
  if numbers.are_stale(tx, claim.marks) then
    return answer.STALE
  end
  local claimed, due_in = operation.claim(tx, claim)
  return { routes.count(tx), due_in, claimed }
end)

--- What a claim would find, for sharing one out among cells. Arguments: routes of its lanes (JSON), max, their
--- marks.
--- @return how many routes there are, next due in, for each lane sort key and ref of each
operation.read("peek", function(tx, args)
  if numbers.are_stale(tx, args[3]) then
    return answer.STALE
  end
  local lanes = cjson.decode(args[1])
  local lists, all_routes = {}, {}
  for index, rows in ipairs(candidates.find_by_lane(tx, lanes, tonumber(args[2]))) do
    local list = {}
    for _, row in ipairs(rows) do
      list[#list + 1] = order.sort_key(row.created_at, row.priority)
      list[#list + 1] = row.ref
    end
    lists[index] = list
    for _, route in ipairs(lanes[index]) do
      all_routes[#all_routes + 1] = route
    end
  end
  local due_at = candidates.next_due_at(tx, all_routes)
  return { routes.count(tx), due_at and math.max(0, due_at - tx.now) or false, lists }
end)

--- What a parked claim looks at before it sleeps on. Arguments: routes (a JSON list), their marks.
--- @return how many routes there are, whether something may be taken, next due in, next timer in
operation.read("look", function(tx, args)
  if numbers.are_stale(tx, args[2]) then
    return answer.STALE
  end
  local route_ids = cjson.decode(args[1])
  local found = #candidates.find(tx, route_ids, 1) > 0
  local due_at = candidates.next_due_at(tx, route_ids)
  local timer = redis.call("ZRANGE", tx.base .. ":t", 0, 0, "WITHSCORES")
  return {
    routes.count(tx),
    found and 1 or 0,
    due_at and math.max(0, due_at - tx.now) or false,
    timer[2] and math.max(0, tonumber(timer[2]) - tx.now) or false,
  }
end)

--- Writes down what time has changed, and tells which grant fits; none where the execution must still wait.
local function ready_for(tx, row, now)
  lifecycle.promote_if_due(tx, row, now)
  if lifecycle.mark_lapsed_if_due(tx, row, now) then
    record.save(tx, row)
    lifecycle.ring(tx, row)
  end
  if grants.is_live(row, now) then
    return nil
  end
  local HOME = state.HOME
  if row.home == HOME.eligible then
    return lifecycle.is_interrupted(row) and "resume" or "claim"
  end
  if row.home ~= HOME.lapsed and row.home ~= HOME.revoked then
    return nil
  end
  if row.score > now or lifecycle.is_at_reclaim_cap(row) or row.holds ~= 0 then
    return nil
  end
  return "reclaim"
end

--- Grants the best candidate to a worker. Arguments: routes it serves (a JSON list), all routes of the lane, worker id,
--- instance id, ttl, notes, the marks of these numbers.
--- @return routes, "granted", kind, ref, expires at; or routes, "empty" or "blocked"
operation.drain("claim_for_worker", function(tx, args)
  if numbers.are_stale(tx, args[7]) then
    return answer.STALE
  end
  local request = {
    worker_id = args[3],
    instance_id = args[4],
    ttl = tonumber(args[5]),
    notes = args[6] ~= "" and args[6] or nil,
  }
  for _, row in ipairs(candidates.find(tx, cjson.decode(args[1]), 10)) do
    local now = record.now(tx, row)
    local kind = ready_for(tx, row, now)
    if kind then
      local expires_at = grants.write(tx, row, kind, request, now)
      record.save(tx, row)
      return { routes.count(tx), "granted", kind, row.ref, expires_at }
    end
  end
  local waiting = candidates.has_waiting(tx, cjson.decode(args[2]))
  return { routes.count(tx), waiting and "blocked" or "empty" }
end)

--- Ids that a claim could take now as ready work, in claim order. Arguments: routes (a JSON list), limit, partition or
--- nothing, the marks of these numbers.
operation.read("scan_eligible", function(tx, args)
  if numbers.are_stale(tx, args[4]) then
    return answer.STALE
  end
  local refs = {}
  for index, row in ipairs(candidates.find_eligible(tx, cjson.decode(args[1]), tonumber(args[2]), tonumber(args[3]))) do
    refs[index] = row.ref
  end
  return { routes.count(tx), refs }
end)
