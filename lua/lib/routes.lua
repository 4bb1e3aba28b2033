-- Routes by number: namespace, lane and required capabilities. Never changed, never removed.

local function name_of(namespace, lane, required)
  return namespace .. "\n" .. lane .. "\n" .. required
end

--- The number of a submission's route; made, with its lane, at first use. `required`: sorted tokens, joined by commas.
function routes.ensure(tx, namespace, lane, required)
  local name = name_of(namespace, lane, required)
  local by_name = tx.base .. ":routes"
  tx.route_ids = tx.route_ids or {}
  local known = tx.route_ids[name] or tonumber(redis.call("HGET", by_name, name) or "")
  tx.route_ids[name] = known
  if known then
    return known
  end
  local id = redis.call("HINCRBY", tx.base, "routes", 1)
  redis.call("HSET", by_name, name, id)
  redis.call("HSET", tx.base .. ":route", id, name)
  numbers.mark(tx, "route", id)
  tx.route_count = nil
  redis.call("ZADD", tx.base .. ":lanes", 0, lane)
  session.new_route(tx)
  return id
end

--- { id, namespace, lane, required }; required as a list.
function routes.find(tx, id)
  tx.routes = tx.routes or {}
  local known = tx.routes[id]
  if known then
    return known
  end
  local name = redis.call("HGET", tx.base .. ":route", id)
  if not name then
    error({ err = "FFCORRUPT route " .. id })
  end
  local namespace, lane, csv = name:match("^([^\n]*)\n([^\n]*)\n([^\n]*)$")
  local required = {}
  for token in csv:gmatch("[^,]+") do
    required[#required + 1] = token
  end
  local route = { id = id, namespace = namespace, lane = lane, required = required }
  tx.routes[id] = route
  return route
end

--- How many there are; they are numbered from 1.
function routes.count(tx)
  tx.route_count = tx.route_count or tonumber(redis.call("HGET", tx.base, "routes") or 0)
  return tx.route_count
end
