-- Work that no live worker can take is set aside, and comes back with the first worker that can.

--- Calls `act` with the first rows of a home, in order. @return how many there were
local function each_of(tx, route, at, limit, act)
  if limit <= 0 then
    return 0
  end
  local index = record.index_of(tx, route.id, at)
  local done = 0
  for _, ref in ipairs(redis.call("ZRANGE", index, 0, limit - 1)) do
    local row = record.find_indexed(tx, index, ref)
    if row then
      act(row)
      done = done + 1
    end
  end
  return done
end

--- Leaves a block; the caller has checked that it may. Saves the row. `actor`: engine or operator.
function unblock.unblock(tx, row, actor)
  local now = record.now(tx, row)
  side.change_details(row, {}, { "blockingDetail", "blockedAtMs" })
  lifecycle.place_runnable(row, now)
  log.append(tx, row, "unblocked", now, actor)
  record.save(tx, row)
  lifecycle.ring(tx, row)
end

--- Puts work of a route (see routes.find) back into the order. @return how many
function unblock.unblock_route(tx, route, limit)
  return each_of(tx, route, state.HOME.blocked_route, limit, function(row)
    unblock.unblock(tx, row, "engine")
  end)
end

--- Out of the order, for a reason that is no hold. The caller appends the event and saves the row.
function unblock.set_aside(tx, row, at, reason, detail, now)
  grants.drop(tx, row)
  row.home = at
  row.score = now
  row.reason = reason
  row.transitioned_at = now
  row.mutated_at = now
  side.change_details(row, { blockingDetail = detail, blockedAtMs = now }, { "blockingDetail" })
end

--- Sets work of a route aside that nobody can take. @return how many
function unblock.block_uncovered(tx, route, limit)
  local HOME, REASON = state.HOME, state.REASON
  local detail = "no live worker has: " .. table.concat(route.required, ",")
  return each_of(tx, route, HOME.eligible, limit, function(row)
    local now = record.now(tx, row)
    unblock.set_aside(tx, row, HOME.blocked_route, REASON.waiting_for_capable_worker, detail, now)
    log.append(tx, row, "blocked", now, "engine", { reason = "waiting_for_capable_worker" })
    record.save(tx, row)
  end)
end
