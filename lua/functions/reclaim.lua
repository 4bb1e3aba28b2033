-- Taking over lost work by hand. Ordinary workers get it from their claims. Allowed at the memory limit, for what is taken
-- over can end.

local function is_lost(row)
  return row.home == state.HOME.lapsed or row.home == state.HOME.revoked
end

local function not_reclaimable(detail)
  return { "notReclaimable", detail }
end

--- Grants the take-over of lost work. Arguments: ref, namespace, lane, those of a grant.
--- @return "granted", lane, expires at; "notReclaimable" and why; or "reclaimCapExceeded" and how often it was taken over
operation.drain("issue_reclaim_grant", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local request = operation.read_grant_request(args, 4)
  local now = record.now(tx, row)
  if lifecycle.mark_lapsed_if_due(tx, row, now) then
    record.save(tx, row)
    lifecycle.ring(tx, row)
  end
  if not is_lost(row) then
    return not_reclaimable("execution_not_reclaimable")
  end
  if row.holds ~= 0 then
    return not_reclaimable("held")
  end
  if lifecycle.is_at_reclaim_cap(row) then
    return { "reclaimCapExceeded", row.reclaims }
  end
  if grants.is_live(row, now) then
    return answer.refuse("grant_already_exists", { expiresAtMs = row.grant_until })
  end
  local worker = registry.find(tx, routes.find(tx, row.route).namespace, request.instance_id)
  if not worker or not registry.is_live(worker, now) then
    local elsewhere = registry.lives_anywhere(tx, request.instance_id, now)
    return not_reclaimable(elsewhere and "namespace_mismatch" or "worker_not_live")
  end
  local lacking = operation.note_mismatch(tx, row, request, now)
  if lacking then
    return not_reclaimable("capability_mismatch: " .. lacking)
  end

  local expires_at = grants.write(tx, row, "reclaim", request, now)
  record.save(tx, row)
  return { "granted", routes.find(tx, row.route).lane, expires_at }
end)

--- Uses a grant of kind reclaim. Arguments: ref, namespace, lane, those of a lease, the caller's cap or nothing.
--- @return "claimed" and what take.answer_in_full says; "notReclaimable" and why; "grantNotFound"; or "reclaimCapExceeded" and how
--- often it was taken over
operation.drain("reclaim_execution", function(tx, args)
  local row, missing = record.require(tx, args[1], args[2], args[3])
  if missing then
    return missing
  end
  local worker_id, lease = args[4], args[6]
  local now = record.now(tx, row)
  if operation.is_own_lease(tx, row, lease, worker_id, now) then
    return { "claimed", take.answer_in_full(tx, row, "reclaimed") }
  end
  if not is_lost(row) then
    return not_reclaimable("execution_not_reclaimable")
  end
  -- The grant first: without one nobody ends an execution, not even at its cap.
  local grant = grants.read(tx, row)
  if not grant or grant.kind ~= "reclaim" or grant.expiresAtMs <= now or grant.workerId ~= worker_id then
    return { "grantNotFound" }
  end
  if lifecycle.is_at_reclaim_cap(row, tonumber(args[10])) then
    local reclaims = row.reclaims
    lifecycle.fail_at_reclaim_cap(tx, row, now)
    record.save(tx, row)
    lifecycle.ring(tx, row)
    return { "reclaimCapExceeded", reclaims }
  end

  local kind = take.execution(tx, row, operation.read_taker(tx, args, 4))
  lifecycle.ring(tx, row)
  return { "claimed", take.answer_in_full(tx, row, kind) }
end)

--- So many entries are looked at in one call: an outage may have left any number.
local LOOKED_AT = 1000

--- Leases that were over at an instant, marked or not; part of them, for one call must not take long. Arguments: routes (a
--- JSON list), the instant or nothing for now, the earliest expiry that is asked for; where to go on: place in the routes,
--- score, how many of that score to pass over; the marks of these numbers.
--- Commands: 1 for the clock, 1 for each route, 1 for each entry looked at.
--- @return the instant, leases ({ ref, lease, epoch, holder, expires at, attempt }), and where to go on, or nothing
operation.read("expired_leases", function(tx, args)
  if numbers.are_stale(tx, args[7]) then
    return answer.STALE
  end
  local HOME = state.HOME
  local route_ids = cjson.decode(args[1])
  local as_of, from_expiry = tonumber(args[2]) or tx.now, tonumber(args[3])
  local place, score, pass = tonumber(args[4]), args[5], tonumber(args[6])
  -- A marked lease is indexed by when it may be taken over: a back-off behind its expiry at most, or, at its cap, when it was
  -- marked.
  local latest = text.of_number(math.max(as_of, tx.now) + order.RECLAIM_BACKOFF_MAX_MS)
  local found, left = {}, LOOKED_AT
  while route_ids[place] do
    local key = record.index_of(tx, route_ids[place], HOME.active)
    local entries = redis.call("ZRANGE", key, score, latest, "BYSCORE", "LIMIT", pass, left, "WITHSCORES")
    for i = 1, #entries, 2 do
      local row = record.find(tx, entries[i])
      local expires_at = row and (row.home == HOME.active or row.home == HOME.lapsed) and row.lease_expires_at
      if expires_at and expires_at <= as_of and expires_at >= from_expiry then
        found[#found + 1] = { row.ref, row.lease, row.epoch, holders.name(tx, row.holder), expires_at, row.attempt }
      end
      pass = entries[i + 1] == score and pass + 1 or 1
      score = entries[i + 1]
    end
    left = left - #entries / 2
    if left == 0 then
      return { as_of, found, place, score, pass }
    end
    place, score, pass = place + 1, "-inf", 0
  end
  return { as_of, found }
end)
