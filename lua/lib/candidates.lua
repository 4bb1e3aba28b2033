-- What a claim may take, best first. Per route one index holds ready work in its order, another whatever time makes due:
-- delayed work, running leases, lost work. Each look is bounded, however much waits behind it.

--- So many due entries are looked at; beyond that portions shorten the queue faster than order could matter.
candidates.DUE_MAX = 200
--- Ready work that may not be taken (granted, past its deadline) is passed over in pages of this size.
local PAGE = 64
local PAGES_MAX = 16

local function may_begin(row, now)
  return not (row.deadline_at and row.deadline_at <= now)
end

--- Of what is due by now: delayed work, and lost work below its cap that nobody holds or was granted.
local function may_take_due(row, now)
  local HOME = state.HOME
  if not may_begin(row, now) then
    return false
  end
  if row.home == HOME.delayed then
    return true
  end
  if lifecycle.is_at_reclaim_cap(row) then
    return false
  end
  if row.home == HOME.active then
    return true
  end
  return row.holds == 0 and not grants.is_live(row, now)
end

local function sort(found)
  table.sort(found, function(a, b)
    local first = order.sort_key(a.created_at, a.priority)
    local second = order.sort_key(b.created_at, b.priority)
    if first ~= second then
      return first < second
    end
    return text.is_before(a.ref, b.ref)
  end)
end

--- Ready rows of a route in order, up to `limit`; `accept` leaves out what the caller cannot use.
local function ready(tx, route, limit, accept)
  local key = record.index_of(tx, route, state.HOME.eligible)
  local found, from = {}, 0
  local size = math.min(limit, PAGE)
  for _ = 1, PAGES_MAX do
    local refs = redis.call("ZRANGE", key, from, from + size - 1)
    record.expect(tx, refs)
    for _, ref in ipairs(refs) do
      local row = record.find(tx, ref)
      if row and not grants.is_live(row, tx.now) and may_begin(row, tx.now) and accept(row) then
        found[#found + 1] = row
        if #found == limit then
          return found
        end
      end
    end
    if #refs < size then
      return found
    end
    from = from + size
    size = PAGE
  end
  return found
end

local function due(tx, route, accept)
  local key = record.index_of(tx, route, state.HOME.delayed)
  local refs = redis.call("ZRANGE", key, "-inf", tx.now, "BYSCORE", "LIMIT", 0, candidates.DUE_MAX)
  record.expect(tx, refs)
  local found = {}
  for _, ref in ipairs(refs) do
    local row = record.find(tx, ref)
    if row and accept(row) then
      found[#found + 1] = row
    end
  end
  return found
end

local function anyone()
  return true
end

--- The best `limit` rows over these routes, in claim order: priority, age, id.
function candidates.find(tx, route_ids, limit, accept)
  accept = accept or anyone
  later.flush(tx)
  local found, in_order = {}, true
  for index, route in ipairs(route_ids) do
    local first = ready(tx, route, limit, accept)
    local second = due(tx, route, function(row)
      return may_take_due(row, tx.now) and accept(row)
    end)
    in_order = in_order and #second == 0 and (index == 1 or #first == 0)
    for _, row in ipairs(first) do
      found[#found + 1] = row
    end
    for _, row in ipairs(second) do
      found[#found + 1] = row
    end
  end
  if not in_order then
    sort(found)
  end
  for index = #found, limit + 1, -1 do
    found[index] = nil
  end
  return found
end

--- Of each lane (a list of its routes) the best, as many as a claim of `wanted` may take that serves these lanes in turn. Lanes
--- are asked for one first, and deeper only where those with work do not suffice: a hundred lanes cost a look each, not all of
--- them all that is wanted.
--- @return a list for each lane
function candidates.find_by_lane(tx, lanes, wanted, accept)
  if #lanes == 1 then
    return { candidates.find(tx, lanes[1], wanted, accept) }
  end
  local lists, busy = {}, 0
  for index, route_ids in ipairs(lanes) do
    lists[index] = busy < wanted and candidates.find(tx, route_ids, 1, accept) or {}
    busy = busy + #lists[index]
  end
  if busy < wanted then
    -- Each of the others gives one at least.
    local depth = wanted - busy + 1
    for index, route_ids in ipairs(lanes) do
      if #lists[index] > 0 then
        lists[index] = candidates.find(tx, route_ids, depth, accept)
      end
    end
  end
  return lists
end

--- What a claim could take as ready work, lost work left out; of one partition where that is given.
function candidates.find_eligible(tx, route_ids, limit, partition)
  local function accept(row)
    return not partition or text.partition_of(row.ref) == partition
  end
  local found = {}
  for _, route in ipairs(route_ids) do
    for _, row in ipairs(ready(tx, route, limit, accept)) do
      found[#found + 1] = row
    end
    local second = due(tx, route, function(row)
      return row.home == state.HOME.delayed and may_begin(row, tx.now) and accept(row)
    end)
    for _, row in ipairs(second) do
      found[#found + 1] = row
    end
  end
  sort(found)
  for index = #found, limit + 1, -1 do
    found[index] = nil
  end
  return found
end

--- When something in these routes next becomes claimable by itself.
function candidates.next_due_at(tx, route_ids)
  later.flush(tx)
  local earliest
  for _, route in ipairs(route_ids) do
    local key = record.index_of(tx, route, state.HOME.delayed)
    local from, to = "(" .. text.of_number(tx.now), "(" .. text.of_number(record.HELD_SCORE)
    local next_one = redis.call("ZRANGE", key, from, to, "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")
    local at = tonumber(next_one[2])
    if at and (not earliest or at < earliest) then
      earliest = at
    end
    local granted = redis.call("ZRANGE", grants.index_of(tx, route), from, to, "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")
    local until_ms = tonumber(granted[2])
    if until_ms and (not earliest or until_ms < earliest) then
      earliest = until_ms
    end
  end
  return earliest
end

--- Whether anything runnable waits on these routes at all.
function candidates.has_waiting(tx, route_ids)
  local HOME = state.HOME
  for _, route in ipairs(route_ids) do
    for at = HOME.eligible, HOME.blocked_lane do
      if at ~= HOME.delayed and redis.call("EXISTS", record.index_of(tx, route, at)) == 1 then
        return true
      end
    end
    for _, row in ipairs(due(tx, route, anyone)) do
      if row.home == HOME.delayed then
        return true
      end
    end
    local delayed = redis.call("ZRANGE", record.index_of(tx, route, HOME.delayed), 0, candidates.DUE_MAX)
    for _, ref in ipairs(delayed) do
      local row = record.find(tx, ref)
      if row and row.home == HOME.delayed then
        return true
      end
    end
  end
  return false
end
