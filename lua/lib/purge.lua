-- Forgetting what is finished and past its retention.

local PAGE = 100

--- Everything of it goes. What feeds still owe of it stands in their stream, until its own time is over; that its tags are gone
--- is the last that they hear.
local function forget(tx, row, index)
  local ref = row.ref
  for tag, value in pairs(text.decoded(row.tags)) do
    tags.drop(tx, row, tag, value)
  end
  if row.tags then
    log.append_to_feed(tx, row, "tags_changed", record.now(tx, row), "engine", {
      transition = false,
      data = { cleared = text.decoded(row.tags) },
    })
  end
  local key = side.get(tx, row, "key")
  if key then
    local route = routes.find(tx, row.route)
    submit.forget_key(tx, route.namespace, route.lane, key, ref)
  end
  redis.call("ZREM", tx.base .. ":all", ref)
  redis.call("ZREM", index, ref)
  redis.call(
    "UNLINK",
    tx.base .. ":d:" .. ref,
    tx.base .. ":i:" .. ref,
    tx.base .. ":r:" .. ref,
    tx.base .. ":v:" .. ref
  )
  streams.forget(tx, ref)
  suspensions.forget(tx, row)
  redis.call("UNLINK", tx.base .. ":x:" .. ref)
end

--- Forgets up to `limit` of an index whose score is in the range, of one partition where that is given. @return how many
local function forget_range(tx, index, from, to, limit, partition)
  local forgotten, passed = 0, 0
  repeat
    local refs = redis.call("ZRANGE", index, from, to, "BYSCORE", "LIMIT", passed, math.min(limit - forgotten, PAGE))
    for _, ref in ipairs(refs) do
      local row = (not partition or text.partition_of(ref) == partition) and record.find_indexed(tx, index, ref)
      if row and state.is_terminal(row.home) then
        forget(tx, row, index)
        forgotten = forgotten + 1
      else
        passed = passed + 1
      end
    end
  until #refs == 0 or forgotten == limit
  return forgotten
end

--- Forgets up to `limit` finished executions whose time is over; an execution's own retention wins. `lane` and `partition`
--- may be nothing. @return how many
function purge.due(tx, retention, limit, lane, partition)
  local ranges = {
    { "0", text.of_number(tx.now - retention) },
    { text.of_number(record.OWN_RETENTION_OFFSET), text.of_number(record.OWN_RETENTION_OFFSET + tx.now) },
  }
  local forgotten = 0
  for id = 1, routes.count(tx) do
    if not lane or routes.find(tx, id).lane == lane then
      local index = record.index_of(tx, id, state.HOME.succeeded)
      for _, range in ipairs(ranges) do
        if forgotten < limit then
          forgotten = forgotten + forget_range(tx, index, range[1], range[2], limit - forgotten, partition)
        end
      end
    end
  end
  return forgotten
end
