-- One bounded, idempotent portion of each sweep. Claims drive the engine with these, sweeps run the same. A row that a look
-- returned is re-checked before it is changed; several at once change nothing.

--- One portion of claims in this time, however many processes drive the cell. A little less than each of them waits.
local INTERVAL_MS = 200
--- Whether work is covered takes a look at all workers, and registrations wake it at once.
local UNBLOCK_INTERVAL_MS = 1000
local EFFECTS_PER_STEP = 100
--- A promotion is cheap, and order is exact only among what has been promoted: ten times as many.
local PROMOTIONS_PER_STEP = 1000
--- Stores with more routes than this are gone through in turns.
local ROUTES_PER_PORTION = 64
--- So many due entries are looked at in one call. Lost work stays there until it is claimed, however much it is.
local LOOKED_AT = 1000
local PAGE = 100

--- Goes through routes from where it ended the last time under this name, and up to the last one. `each` gets the number of a
--- route and how many of its entries to pass over; to break off there it returns how many the next call has to.
--- @return whether it broke off
local function in_turn(tx, name, most, each)
  local field, count = "turn_" .. name, routes.count(tx)
  local stored = redis.call("HGET", tx.base, field) or "1 0"
  local id, pass = stored:match("^(%d+) (%d+)$")
  id, pass = tonumber(id), tonumber(pass)
  local last, broke_off = math.min(count, id + most - 1), false
  while id <= last and not broke_off do
    local reached = each(id, pass)
    broke_off = reached ~= nil
    id, pass = broke_off and id or id + 1, reached or 0
  end
  if id > count then
    id, pass = 1, 0
  end
  local reached = id .. " " .. pass
  if reached ~= stored then
    redis.call("HSET", tx.base, field, reached)
  end
  return broke_off
end

local function is_poison(row)
  local is_lost = row.home == state.HOME.lapsed or row.home == state.HOME.revoked
  return is_lost and row.holds == 0 and lifecycle.is_at_reclaim_cap(row)
end

--- Does what is due and wanted, and counts it in the budget. @return whether the entry is still among what is due
local function settle(tx, index, ref, budget)
  local row = record.find_indexed(tx, index, ref)
  if not row then
    return redis.call("ZSCORE", index, ref) ~= false
  end
  local now, changed = record.now(tx, row), false
  local function spend(name)
    budget[name] = budget[name] - 1
    changed = true
  end
  if budget.delayed_promoter and lifecycle.promote_if_due(tx, row, now) then
    spend("delayed_promoter")
  end
  if budget.lease_expiry and lifecycle.mark_lapsed_if_due(tx, row, now) then
    spend("lease_expiry")
  end
  -- Back-off or not: whoever is at the cap waits for nothing.
  if budget.reclaim_driver and is_poison(row) then
    lifecycle.fail_at_reclaim_cap(tx, row, now)
    spend("reclaim_driver")
  end
  if not changed then
    return true
  end
  record.save(tx, row)
  lifecycle.ring(tx, row)
  return record.index_of(tx, row.route, row.home) == index and record.index_score(row) <= tx.now
end

local function is_spent(budget)
  return budget.looks == 0 or budget.delayed_promoter == 0 or budget.lease_expiry == 0 or budget.reclaim_driver == 0
end

--- Delays that are over, leases that lapsed, and lost work at its cap. `budget`: how many of each there may be, by the names of
--- their sweeps, nothing for what is not wanted. @return whether it broke off
local function settle_due(tx, name, routes_max, budget)
  budget.looks = LOOKED_AT
  return in_turn(tx, name, routes_max, function(id, pass)
    local index = record.index_of(tx, id, state.HOME.delayed)
    repeat
      local refs = redis.call("ZRANGE", index, "-inf", text.of_number(tx.now), "BYSCORE", "LIMIT", pass, PAGE)
      for _, ref in ipairs(refs) do
        if is_spent(budget) then
          return pass
        end
        budget.looks = budget.looks - 1
        if settle(tx, index, ref, budget) then
          pass = pass + 1
        end
      end
    until #refs < PAGE
    return nil
  end)
end

--- @return how many were done, and whether there may be more
local function sweep_due(tx, name, limit)
  local budget = { [name] = limit }
  local broke_off = settle_due(tx, name, math.huge, budget)
  return limit - budget[name], broke_off
end

--- @return whether that was what its timer was for
local function fire(tx, row, reason, random)
  if reason == "suspension_timeout" then
    local is_readable = pcall(suspensions.find, tx, row)
    return is_readable and suspending.time_out(tx, row) == "applied"
  end
  local result = expiry.expire(tx, row, reason, random)
  return result == "expired" or result == "retryScheduled"
end

--- Fires up to `limit` timers that are due, for these reasons. `random`: for the back-offs of retries. @return how many
local function fire_due(tx, limit, random, reasons)
  local done, index = 0, tx.base .. ":t"
  local refs = redis.call("ZRANGE", index, "-inf", text.of_number(tx.now), "BYSCORE", "LIMIT", 0, LOOKED_AT)
  for place, ref in ipairs(refs) do
    if done == limit then
      return done
    end
    local row = record.find_indexed(tx, index, ref)
    for _, reason in ipairs(row and reasons or {}) do
      -- Steps of the golden ratio lie evenly.
      if fire(tx, row, reason, (random + place * 0.618034) % 1) then
        done = done + 1
        break
      end
    end
  end
  return done
end

--- Opens routes that a live worker covers and sets aside what nobody can take. @return how many executions
local function unblock_due(tx, name, routes_max, limit)
  local HOME = state.HOME
  local left, live = limit, {}
  in_turn(tx, name, routes_max, function(id)
    local route = routes.find(tx, id)
    local waits = redis.call("EXISTS", record.index_of(tx, id, HOME.blocked_route)) == 1
      or #route.required > 0 and redis.call("EXISTS", record.index_of(tx, id, HOME.eligible)) == 1
    if not waits then
      return nil
    end
    local namespace = route.namespace
    live[namespace] = live[namespace] or registry.live(tx, namespace)
    if capabilities.is_covered(route.required, route.lane, live[namespace]) then
      left = left - unblock.unblock_route(tx, route, left)
    else
      left = left - unblock.block_uncovered(tx, route, left)
    end
    return left == 0 and 0 or nil
  end)
  return limit - left
end

--- When the next timer of the cell is due, of those behind an instant where that is given.
function portions.next_timer_at(tx, after)
  local from = after and "(" .. text.of_number(after) or "-inf"
  return tonumber(redis.call("ZRANGE", tx.base .. ":t", from, "+inf", "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")[2])
end

--- Also after the clock was moved back.
local function is_recent(tx, at, interval)
  return at and math.abs(tx.now - tonumber(at)) < interval
end

--- What claims drive beside them: all that time brings about.
--- @return whether there may be more to do at once, and when there is as far as timers tell
function portions.drive(tx, random)
  local said = redis.call("HMGET", tx.base, "portion_at", "portion_more", "unblocked_at")
  if is_recent(tx, said[1], INTERVAL_MS) then
    return said[2] == "1", portions.next_timer_at(tx)
  end
  redis.call("HSET", tx.base, "portion_at", text.of_number(tx.now), "portion_more", 0)
  local limit = EFFECTS_PER_STEP
  -- Deadlines come first: behind them nothing else matters.
  local fired = fire_due(tx, limit, random, { "execution_deadline", "attempt_timeout", "suspension_timeout" })
  local broke_off = settle_due(tx, "drive", ROUTES_PER_PORTION, {
    delayed_promoter = PROMOTIONS_PER_STEP,
    lease_expiry = limit,
    reclaim_driver = limit,
  })
  local unblocked = 0
  if not is_recent(tx, said[3], UNBLOCK_INTERVAL_MS) then
    unblocked = unblock_due(tx, "drive_unblock", ROUTES_PER_PORTION, limit)
    if unblocked < limit then
      redis.call("HSET", tx.base, "unblocked_at", text.of_number(tx.now))
    end
  end
  local closed = waitpoints.expire_due(tx, limit)
  local more = fired >= limit or broke_off or unblocked >= limit or closed >= limit
  if more then
    redis.call("HSET", tx.base, "portion_more", 1)
  end
  -- A timer that is due and still there cannot be settled by looking again.
  return more, portions.next_timer_at(tx, tx.now)
end

--- By name; `sweep`: limit, random, retention, feed_retention, feed_events_max.
--- @return how many effects, and whether there may be more
portions.SWEEPS = {
  delayed_promoter = function(tx, sweep)
    return sweep_due(tx, "delayed_promoter", sweep.limit)
  end,

  lease_expiry = function(tx, sweep)
    return sweep_due(tx, "lease_expiry", sweep.limit)
  end,

  reclaim_driver = function(tx, sweep)
    return sweep_due(tx, "reclaim_driver", sweep.limit)
  end,

  attempt_timeout = function(tx, sweep)
    return fire_due(tx, sweep.limit, sweep.random, { "attempt_timeout" })
  end,

  execution_deadline = function(tx, sweep)
    return fire_due(tx, sweep.limit, sweep.random, { "execution_deadline" })
  end,

  suspension_timeout = function(tx, sweep)
    return fire_due(tx, sweep.limit, sweep.random, { "suspension_timeout" })
  end,

  pending_wp_expiry = function(tx, sweep)
    return waitpoints.expire_due(tx, sweep.limit)
  end,

  unblock = function(tx, sweep)
    return unblock_due(tx, "unblock", math.huge, sweep.limit)
  end,

  worker_registry_ttl_sweep = function(tx, sweep)
    return registry.forget_dead(tx, sweep.limit)
  end,

  retention_trimmer = function(tx, sweep)
    return purge.due(tx, sweep.retention, sweep.limit)
  end,

  -- However many events it drops, it is one effect. Idempotency keys lapse by themselves.
  event_trimmer = function(tx, sweep)
    local dropped, more = trimming.trim(tx, tx.now - sweep.feed_retention, sweep.feed_events_max)
    return math.min(dropped, 1), more
  end,
}

--- When this sweep next has something to do, as far as it can be told.
function portions.next_due_at(tx, name)
  if name == "attempt_timeout" or name == "execution_deadline" or name == "suspension_timeout" then
    return portions.next_timer_at(tx)
  end
  if name == "pending_wp_expiry" then
    return waitpoints.next_expiry_at(tx)
  end
  if name == "delayed_promoter" or name == "lease_expiry" then
    local all = {}
    for id = 1, routes.count(tx) do
      all[id] = id
    end
    return candidates.next_due_at(tx, all)
  end
  return nil
end
